"""The files all agents share: interlock.yaml, teams.yaml, interlock.lock and gateway/*.

An error in any of them concerns everybody, so the whole commit is refused. Which file says what
is told by its top-level keys; a name may be defined in any of them, but only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from gateway import policy as gateway
from reconciler.config import hints
from reconciler.config.cassettes import read_cassette
from reconciler.config.common import LOCK, Shared, home, undefined
from reconciler.config.crosscheck import cross_check
from reconciler.config.models import KINDS, platform, principals, rules, servers
from reconciler.config.models import fleet as documents
from reconciler.config.models.agent import AgentFile
from reconciler.config.owners import owner_rules
from reconciler.config.positions import Document
from reconciler.config.principals import resolve_principals
from reconciler.config.reader import Notes, Reader
from reconciler.config.rollouts import rollout_policy
from reconciler.config.shapes import kind_of
from reconciler.config.skills import FOLDER, skill_names
from reconciler.findings import Place, did_you_mean, quoted
from reconciler.source.tree import Kind, UnsafePath

__all__ = ["LOCK", "Shared", "home", "read_shared", "undefined"]


def read_shared(reader: Reader, notes: Notes) -> Shared:
    """Read and check every shared file of the tree."""
    shared = Shared()
    for path in _paths(reader, notes):
        document = reader.document(path)
        ours = path.startswith("gateway/") or path in ("interlock.yaml", "teams.yaml")
        if not ours and not _concerns_us(document):
            continue
        model = kind_of(document)
        if model in (None, AgentFile) or model not in _TAKERS:
            _stray(document, notes)
            continue
        value = reader.shaped(document, model, notes)
        if value is not None:
            _TAKERS[model](shared, value, document, reader, notes)
    _read_lock(shared, reader, notes)
    if shared.fleet is None and not notes.failed:
        notes.error(
            "no-fleet",
            Place("interlock.yaml"),
            "there is no fleet: no file at the top says `fleet:`",
            "start one with `interlock init`",
        )
    if not notes.failed:
        for name in skill_names(reader):
            shared.places["skill", name] = Place(f"{FOLDER}/{name}/SKILL.md")
        shared.owner_rules = owner_rules(reader, shared, notes)
        cross_check(shared, notes)
        resolve_principals(shared, notes)
    return shared


def _paths(reader: Reader, notes: Notes) -> list[str]:
    found: list[str] = []
    for folder in ("", "gateway"):
        try:
            names = reader.names(folder, Kind.BLOB, Kind.LINK)
        except UnsafePath as unsafe:
            notes.error("unsafe-path", Place(folder or "interlock.yaml"), str(unsafe))
            continue
        found += [
            f"{folder}/{name}" if folder else name
            for name in names
            if name.endswith((".yaml", ".yml")) and not name.startswith(".")
        ]
    return found


def _concerns_us(document: Document) -> bool:
    """Other tools keep YAML at the top of a repository too; a misspelt key of ours is ours."""
    if not isinstance(document.data, dict):
        return False
    return any(key in KINDS or did_you_mean(key, ["fleet", "teams"]) for key in document.data)


def _stray(document: Document, notes: Notes) -> None:
    if document.findings:
        notes.findings += document.findings
        return
    keys = list(document.data) if isinstance(document.data, dict) else []
    known = sorted({key for key, model in KINDS.items() if model in _TAKERS})
    if keys and keys[0] not in KINDS:
        place = document.at([keys[0]], key=True)
        fix = (
            hints.for_document(document.data)
            or did_you_mean(keys[0], known)
            or f"known here: {', '.join(known)}"
        )
        notes.error("unknown-kind", place, f"unknown document {quoted(keys[0])}", fix)
    else:
        what = f"{quoted(keys[0])} does not belong here" if keys else "the file says nothing"
        notes.error(
            "unknown-kind", document.at(keys[:1], key=True), what, f"known here: {', '.join(known)}"
        )


def _read_lock(shared: Shared, reader: Reader, notes: Notes) -> None:
    try:
        present = reader.tree.exists(LOCK)
    except UnsafePath as unsafe:
        notes.error("unsafe-path", Place(LOCK), str(unsafe))
        return
    if present:
        value, document = reader.expect(LOCK, documents.LockFile, notes)
        if value is not None:
            shared.lock = value.lock
            for kind, part, names in (
                ("image", "images", value.lock.images),
                ("fingerprint", "tools", value.lock.tools),
            ):
                for name in names:
                    place = document.at(["lock", part, name], key=True)
                    shared.places[kind, name] = place


OURS = "interlock"
"""What stands before the names of the gateway's own tools."""


def _name(
    shared: Shared,
    kind: str,
    name: str,
    document: Document,
    at: list[str | int],
    notes: Notes,
    *,
    key: bool = True,
) -> bool:
    """Note where a name is defined; False and a finding when it was defined before."""
    place = document.at(at, key=key)
    first = shared.places.setdefault((kind, name), place)
    if first != place:
        notes.error(
            "duplicate-name",
            place,
            f"{kind} {quoted(name)} is defined twice (first at {first})",
            "rename or remove one of them",
        )
    return first == place


_PARTS: Mapping[str, list[str | int]] = {
    "branch": ["fleet", "branch"],
    "reports": ["fleet", "reports"],
    "signers": ["fleet", "reports", "signers"],
    "forge": ["fleet", "forge"],
    "defaults": ["fleet", "defaults"],
}
"""Parts of the fleet that have no name of their own."""


def _take_fleet(
    shared: Shared, value: documents.FleetFile, document: Document, reader: Reader, notes: Notes
) -> None:
    if shared.fleet_document is not None:
        first = shared.fleet_document.at(["fleet"], key=True)
        notes.error(
            "duplicate-name",
            document.at(["fleet"], key=True),
            f"the fleet is defined twice (first at {first})",
            "merge the two files",
        )
        return
    shared.fleet, shared.fleet_document = value.fleet, document
    for part, at in _PARTS.items():
        if document.has(at):
            shared.places["fleet", part] = document.at(at, key=True)
    if value.fleet.reports.branch == value.fleet.branch:
        notes.error(
            "reports-branch",
            document.at(["fleet", "reports", "branch"]),
            "reports must not go to the watched branch",
            "write another branch, such as interlock/reports",
        )
    for name, rollout in value.fleet.rollouts.items():
        here: list[str | int] = ["fleet", "rollouts", name]
        shared.rollouts[name] = rollout_policy(name, rollout, document, here, notes)
        _name(shared, "rollout", name, document, here, notes)


def _take_teams(
    shared: Shared, value: documents.TeamsFile, document: Document, reader: Reader, notes: Notes
) -> None:
    for name, team in value.teams.items():
        if _name(shared, "team", name, document, ["teams", name], notes):
            shared.teams[name] = team
            shared.team_documents[name] = document


def _take_models(
    shared: Shared, value: platform.ModelsFile, document: Document, reader: Reader, notes: Notes
) -> None:
    for name, provider in value.providers.items():
        if not _name(shared, "provider", name, document, ["providers", name], notes):
            continue
        at: list[str | int] = ["providers", name]
        script: gateway.Script | None = None
        tape: tuple[gateway.TapeEntry, ...] = ()
        if provider.script is not None:
            script = _script(provider.script, [*at, "script"], document, reader, notes)
            if script is None:
                continue
        if provider.cassette is not None:
            here = [*at, "cassette"]
            found = _cassette(provider.cassette, here, document, reader, notes)
            if found is None:
                continue
            tape = found
        shared.providers[name] = provider.provider(script=script, tape=tape)
    for name, model in value.models.items():
        if _name(shared, "model", name, document, ["models", name], notes):
            shared.models[name] = gateway.Model(**model.model_dump())
    for name, virtual in value.virtual_models.items():
        if _name(shared, "model", name, document, ["virtual_models", name], notes):
            shared.virtual_models[name] = virtual.virtual()
            shared.places["virtual-model", name] = shared.places["model", name]


def _script(
    reference: str, at: list[str | int], document: Document, reader: Reader, notes: Notes
) -> gateway.Script | None:
    asked = document.at(at)
    path = reader.resolve(document.file, reference, notes, asked=asked)
    if path is None:
        return None
    value, _ = reader.expect(path, platform.ScriptFile, notes, asked=asked)
    return value.script if value else None


def _cassette(
    reference: str, at: list[str | int], document: Document, reader: Reader, notes: Notes
) -> tuple[gateway.TapeEntry, ...] | None:
    asked = document.at(at)
    path = reader.resolve(document.file, reference, notes, asked=asked)
    return None if path is None else read_cassette(reader, path, notes, asked=asked)


def _take_servers(
    shared: Shared, value: servers.ServersFile, document: Document, reader: Reader, notes: Notes
) -> None:
    shared.destructive += value.destructive
    if value.destructive:
        place = document.at(["destructive"], key=True)
        shared.places.setdefault(("destructive", "list"), place)
    for name, server in value.servers.items():
        if name == OURS:
            notes.error(
                "reserved-name",
                document.at(["servers", name], key=True),
                f"no tool server can be called {quoted(name)}: the gateway's own tools are "
                "interlock__find_tools and the like",
                "rename it, and where it is used",
            )
            continue
        if _name(shared, "server", name, document, ["servers", name], notes):
            for tool in server.tools:
                at: list[str | int] = ["servers", name, "tools", tool]
                shared.places["tool", f"{name}.{tool}"] = document.at(at, key=True)
            shared.servers[name] = server.server()


def _take_budgets(
    shared: Shared, value: platform.BudgetsFile, document: Document, reader: Reader, notes: Notes
) -> None:
    for index, budget in enumerate(value.budgets):
        at: list[str | int] = ["budgets", index, "name"]
        if _name(shared, "budget", budget.name, document, at, notes, key=False):
            shared.budgets.append(gateway.BudgetRule(**budget.model_dump()))


def _take_rate_limits(
    shared: Shared, value: rules.RateLimitsFile, document: Document, reader: Reader, notes: Notes
) -> None:
    for index, limit in enumerate(value.rate_limits):
        at: list[str | int] = ["rate_limits", index, "name"]
        if _name(shared, "rate-limit", limit.name, document, at, notes, key=False):
            shared.rate_limits.append(limit.rule())


def _take_guardrails(
    shared: Shared, value: rules.GuardrailsFile, document: Document, reader: Reader, notes: Notes
) -> None:
    for index, guardrail in enumerate(value.guardrails):
        at: list[str | int] = ["guardrails", index, "name"]
        if _name(shared, "guardrail", guardrail.name, document, at, notes, key=False):
            shared.guardrails.append(guardrail.rule())


def _take_caches(
    shared: Shared, value: rules.CachesFile, document: Document, reader: Reader, notes: Notes
) -> None:
    for index, cache in enumerate(value.caches):
        at: list[str | int] = ["caches", index, "name"]
        if _name(shared, "cache", cache.name, document, at, notes, key=False):
            shared.caches.append(cache.rule())


def _take_principals(
    shared: Shared,
    value: principals.PrincipalsFile,
    document: Document,
    reader: Reader,
    notes: Notes,
) -> None:
    shared.principal_files.append((value, document))


_TAKERS: Mapping[type[BaseModel], Any] = {
    documents.FleetFile: _take_fleet,
    documents.TeamsFile: _take_teams,
    platform.ModelsFile: _take_models,
    servers.ServersFile: _take_servers,
    platform.BudgetsFile: _take_budgets,
    rules.RateLimitsFile: _take_rate_limits,
    rules.GuardrailsFile: _take_guardrails,
    rules.CachesFile: _take_caches,
    principals.PrincipalsFile: _take_principals,
}
