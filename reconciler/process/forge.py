"""Wiring of `interlock pr`: from a repository's address to its local forge.

These commands must work with nothing but an address, also beside a running reconciler. So they
never touch its mirror: they keep one of their own in the state directory, where there is one, and
otherwise clone into a temporary directory and leave nothing behind.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gateway.clock import SystemClock
from reconciler.forge.local import LocalForge
from reconciler.forge.model import INTERLOCK_LOGIN, Login
from reconciler.operations import Refused
from reconciler.operations.pulls import Desk
from reconciler.process.credentials import credentials
from reconciler.process.store import DATABASE, open_database, remembered
from reconciler.process.supervisor import EnvironmentLacks
from reconciler.source import Mirror


@contextmanager
def open_desk(
    state: Path,
    environment: Mapping[str, str],
    *,
    repo: str | None,
    branch: str | None,
    login: str,
) -> Iterator[Desk]:
    """The pulls of a repository as of now, and somebody to act as.

    Without a repository or branch it is the one that the state directory remembers. Raises
    EnvironmentLacks when none is known, RemoteUnavailable, Refused for the reconciler's own name.
    """
    if login.casefold() == INTERLOCK_LOGIN:
        raise Refused(f"{login!r} is the reconciler's own name; use yours: --as LOGIN")
    known = (state / DATABASE).exists()
    if known:
        database = open_database(state)
        repo = repo or remembered(database, "repo")
        branch = branch or remembered(database, "branch")
    if repo is None:
        raise EnvironmentLacks("no config repo is known: give --repo URL, or set INTERLOCK_REPO")
    with ExitStack() as stack:
        if known:
            name = hashlib.sha256(repo.encode()).hexdigest()[:12]
            place = state.resolve() / "mirrors" / f"pulls-{name}.git"
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(place.with_suffix(".lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # two such commands at once: one after the other
        else:
            temporary = tempfile.TemporaryDirectory(prefix="interlock-pulls-")
            place = Path(stack.enter_context(temporary)) / "mirror"
        fresh = not place.exists()
        mirror = Mirror.open_or_clone(repo, place, auth=credentials(environment))
        forge = LocalForge(
            mirror,
            clock=SystemClock.from_environment(environment),
            login=Login(login),
            bot=False,
            sleep=time.sleep,
            draw=random.SystemRandom().random,
        )
        if not fresh:
            forge.refresh()
        yield Desk(forge, mirror, branch or mirror.default_branch() or "main")


def default_login(environment: Mapping[str, str]) -> str:
    """INTERLOCK_LOGIN, else git's user.name as a login, else the name of this account."""
    told = environment.get("INTERLOCK_LOGIN")
    if told:
        return told
    asked = subprocess.run(
        ["git", "config", "user.name"], capture_output=True, text=True, check=False
    )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", asked.stdout.strip().lower()).strip("-._")
    return name or getpass.getuser()
