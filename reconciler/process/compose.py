"""Wiring: from options and environment to a `Context` that a tick can work with."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gateway.clock import SystemClock
from gateway.database import Database
from reconciler.fleet.touches import secret_variables
from reconciler.forge.local import LocalForge
from reconciler.forge.model import Login
from reconciler.process.credentials import credentials
from reconciler.process.store import open_database, remembered
from reconciler.process.supervisor import EnvironmentLacks
from reconciler.record import mark
from reconciler.record import rebuild as rebuilding
from reconciler.source import Mirror, Signer, Timeouts
from reconciler.source.errors import RemoteUnavailable
from reconciler.tick.compiling import compile_head
from reconciler.tick.context import Context
from reconciler.tick.declare import last_good
from reconciler.tick.force import units_in_force


@dataclass(frozen=True)
class Options:
    """What a person or a job tells; everything else is in git."""

    state: Path
    repo: str | None = None
    branch: str | None = None
    signing_key: Path | None = None
    slots: int = 4
    deadline_s: float | None = None
    gateway_listen: str | None = None
    """HOST:PORT of the gateway, for callers from outside; None: any port of this machine's own."""


def open_context(options: Options, environment: Mapping[str, str], *, job: bool) -> Context:
    """Everything a tick needs. Clones the config repo when the state directory is empty.

    Raises EnvironmentLacks when no repository is known, RemoteUnavailable when it must be cloned
    and cannot be reached.
    """
    state = options.state.resolve()
    database = open_database(state)
    repo = options.repo or remembered(database, "repo")
    if repo is None:
        raise EnvironmentLacks(
            "no config repo is known: give --repo URL (or set INTERLOCK_REPO). "
            "`interlock reconcile --once --repo URL --state DIR` remembers it."
        )
    auth = credentials(environment)
    # The whole operation may take as long as a large clone does, but silence means a dead remote.
    timeouts = Timeouts(connect_ms=10_000, silence_ms=30_000, total_ms=600_000)
    config = Mirror.open_or_clone(
        repo, state / "mirrors" / "config.git", auth=auth, timeouts=timeouts
    )
    branch = options.branch or remembered(database, "branch") or config.default_branch() or "main"
    for name, value in (("repo", repo), ("branch", branch)):
        _remember(database, name, value)
    clock = SystemClock.from_environment(environment)
    return Context(
        database=database,
        clock=clock,
        state=state,
        config=config,
        branch=branch,
        machine=socket.gethostname(),
        job=job,
        signer=_signer(options, environment, state),
        mirror=lambda url, path: Mirror.open_or_clone(
            url, path, auth=auth if _same_host(url, repo) else None, timeouts=timeouts
        ),
        seeded=random.Random,
        forge=LocalForge(
            config,
            clock=clock,
            login=Login("interlock"),
            bot=True,
            sleep=time.sleep,
            draw=random.random,
        ),
    )


def allowed_signers(context: Context) -> tuple[str, ...]:
    """Public keys that the last good commit of the watched branch believes."""
    return _reports(context)[1]


def reports_branch(context: Context) -> str:
    """Where the record goes, as the last good commit of the watched branch says."""
    return _reports(context)[0]


def _reports(context: Context) -> tuple[str, tuple[str, ...]]:
    """(branch, signers). A commit that cannot be read must not leave the record without either:
    then what the last good one said is in force, which this database remembers."""
    declared = context.declared
    with context.database.snapshot() as tx:
        in_force = units_in_force(tx)
    if declared is None and "fleet/signers" in in_force:
        # What is in force, not what somebody has pushed since and nobody has approved.
        stored = in_force["fleet/signers"].value
        signers = tuple(map(str, stored)) if isinstance(stored, list) else ()
        return str(in_force["fleet/reports"].value), signers
    if declared is None:
        head = context.config.resolve(context.branch)
        if head is not None:
            declared = compile_head(context, head).found or last_good(context, head)
    if declared is not None:
        branch, signers = declared.fleet.reports_branch, declared.fleet.signers
        told = json.dumps([branch, list(signers)])
        if remembered(context.database, "reports") != told:
            _remember(context.database, "reports", told)
        return branch, signers
    known = remembered(context.database, "reports")
    if known is None:
        return "interlock/reports", ()
    branch, keys = json.loads(known)
    return str(branch), tuple(keys)


def secret_names(context: Context) -> frozenset[str]:
    """Environment variables that the policy names as secrets: for the gateway only."""
    declared = context.declared
    if declared is None:
        return frozenset()
    return secret_variables(declared.fleet.platform)


def restore_if_behind(context: Context) -> rebuilding.Rebuilt | None:
    """Go on from the reports branch when it is not where this database left it.

    A fresh state directory knows nothing; one that another machine has overtaken knows too
    little. None when the database is what the branch tells, or the branch cannot be reached and
    this database has a state of its own. Raises the errors of `record.rebuild` when the branch
    cannot be believed: nothing may run on a state that somebody else made up.
    """
    with context.database.snapshot() as tx:
        known = {m.head for m in (mark.last(tx), mark.pending(tx)) if m is not None}
    try:
        context.config.fetch()
    except RemoteUnavailable:
        if not known:
            raise
        return None
    branch = reports_branch(context)
    head = context.config.resolve(branch)
    if known and head in known:
        return None
    return rebuilding.rebuild(
        context.database,
        context.config,
        branch=branch,
        allowed=allowed_signers(context),
        clock=context.clock,
    )


def _same_host(url: str, repo: str) -> bool:
    """Whether the config repo's credentials may be shown to `url`: a commit must not choose where
    a secret goes, so they go to the host the operator named and to no other."""
    ours, theirs = urlsplit(repo), urlsplit(url)
    return bool(ours.hostname) and (ours.scheme, ours.hostname) == (theirs.scheme, theirs.hostname)


def _signer(options: Options, environment: Mapping[str, str], state: Path) -> Signer | None:
    if options.signing_key is not None:
        if not options.signing_key.is_file():
            raise EnvironmentLacks(
                f"there is no signing key at {options.signing_key}; make one with "
                f"`ssh-keygen -t ed25519 -N '' -f {options.signing_key}` and add its public half "
                "to fleet.reports.signers in interlock.yaml"
            )
        return Signer(options.signing_key)
    text = environment.get("INTERLOCK_SIGNING_KEY")
    if not text:
        return None
    if Path(text).is_file():
        return Signer(Path(text))
    # A CI secret holds the key itself; ssh-keygen reads keys from files only.
    path = state / "signing-key"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text.strip() + "\n")
    return Signer(path)


def _remember(database: Database, name: str, value: str) -> None:
    with database.transaction() as tx:
        tx.execute(
            "INSERT INTO facts (name, value) VALUES (:name, :value)"
            " ON CONFLICT (name) DO UPDATE SET value = :value",
            name=name,
            value=value,
        )
