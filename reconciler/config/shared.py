"""The files all agents share: interlock.yaml, teams.yaml, interlock.lock and gateway/*.

An error in any of them concerns everybody, so the whole commit is refused. Which file says what
is told by its top-level keys; a name may be defined in any of them, but only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel

from gateway import policy as gateway
from reconciler.config.models import KINDS, platform
from reconciler.config.models import fleet as documents
from reconciler.config.models.agent import AgentFile
from reconciler.config.positions import Document
from reconciler.config.reader import Notes, Reader
from reconciler.config.rollouts import rollout_policy
from reconciler.config.shapes import kind_of
from reconciler.findings import Place, did_you_mean, quoted
from reconciler.source.tree import Kind, UnsafePath

M = TypeVar("M", bound=BaseModel)
LOCK = "interlock.lock"


@dataclass
class Shared:
    """What was read. Named things keep where they are named."""

    fleet: documents.Fleet | None = None
    fleet_document: Document | None = None
    lock: documents.Lock = field(default_factory=documents.Lock)
    teams: dict[str, documents.Team] = field(default_factory=dict)
    providers: dict[str, gateway.Provider] = field(default_factory=dict)
    models: dict[str, gateway.Model] = field(default_factory=dict)
    virtual_models: dict[str, gateway.VirtualModel] = field(default_factory=dict)
    servers: dict[str, gateway.ToolServer] = field(default_factory=dict)
    destructive: list[str] = field(default_factory=list)
    budgets: list[gateway.BudgetRule] = field(default_factory=list)
    places: dict[tuple[str, str], Place] = field(default_factory=dict)
    """(kind, name) → where it is named."""

    @cached_property
    def platform(self) -> gateway.Policy:
        """The gateway's part of it. Not to be asked for before everything is read."""
        return gateway.Policy(
            providers=self.providers,
            models=self.models,
            virtual_models=self.virtual_models,
            servers=self.servers,
            destructive=tuple(self.destructive),
            budgets=tuple(self.budgets),
        )

    @property
    def model_names(self) -> list[str]:
        """Names an agent may use."""
        return [*self.models, *self.virtual_models]


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
        _cross_check(shared, notes)
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
        fix = did_you_mean(keys[0], known) or f"known here: {', '.join(known)}"
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
        value, _ = reader.expect(LOCK, documents.LockFile, notes)
        if value is not None:
            shared.lock = value.lock


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
    if value.fleet.reports.branch == value.fleet.branch:
        notes.error(
            "reports-branch",
            document.at(["fleet", "reports", "branch"]),
            "reports must not go to the watched branch",
            "write another branch, such as interlock/reports",
        )
    for name, rollout in value.fleet.rollouts.items():
        rollout_policy(name, rollout, document, ["fleet", "rollouts", name], notes)


def _take_teams(
    shared: Shared, value: documents.TeamsFile, document: Document, reader: Reader, notes: Notes
) -> None:
    for name, team in value.teams.items():
        if _name(shared, "team", name, document, ["teams", name], notes):
            shared.teams[name] = team


def _take_models(
    shared: Shared, value: platform.ModelsFile, document: Document, reader: Reader, notes: Notes
) -> None:
    for name, provider in value.providers.items():
        if not _name(shared, "provider", name, document, ["providers", name], notes):
            continue
        script = None
        if provider.script is not None:
            script = _script(
                provider.script, ["providers", name, "script"], document, reader, notes
            )
            if script is None:
                continue
        fields = provider.model_dump(exclude={"script"})
        shared.providers[name] = gateway.Provider(**fields, script=script)
    for name, model in value.models.items():
        if _name(shared, "model", name, document, ["models", name], notes):
            shared.models[name] = gateway.Model(**model.model_dump())
    for name, virtual in value.virtual_models.items():
        if _name(shared, "model", name, document, ["virtual_models", name], notes):
            shared.virtual_models[name] = gateway.VirtualModel(targets=tuple(virtual.targets))


def _script(
    reference: str, at: list[str | int], document: Document, reader: Reader, notes: Notes
) -> gateway.Script | None:
    asked = document.at(at)
    path = reader.resolve(document.file, reference, notes, asked=asked)
    if path is None:
        return None
    value, _ = reader.expect(path, platform.ScriptFile, notes, asked=asked)
    return value.script if value else None


def _take_servers(
    shared: Shared, value: platform.ServersFile, document: Document, reader: Reader, notes: Notes
) -> None:
    shared.destructive += value.destructive
    for name, server in value.servers.items():
        if _name(shared, "server", name, document, ["servers", name], notes):
            shared.servers[name] = gateway.ToolServer(**server.model_dump())


def _take_budgets(
    shared: Shared, value: platform.BudgetsFile, document: Document, reader: Reader, notes: Notes
) -> None:
    for index, budget in enumerate(value.budgets):
        at: list[str | int] = ["budgets", index, "name"]
        if _name(shared, "budget", budget.name, document, at, notes, key=False):
            shared.budgets.append(gateway.BudgetRule(**budget.model_dump()))


_TAKERS: Mapping[type[BaseModel], Any] = {
    documents.FleetFile: _take_fleet,
    documents.TeamsFile: _take_teams,
    platform.ModelsFile: _take_models,
    platform.ServersFile: _take_servers,
    platform.BudgetsFile: _take_budgets,
}


def undefined(
    notes: Notes, place: Place, *, kind: str, name: str, known: list[str], home: str
) -> None:
    """A reference to nothing: `model "smrt" is not defined; did you mean "smart"? (home)`."""
    guess = did_you_mean(name, known)
    if guess:
        fix = f"{guess} ({home})"
    elif known:
        fix = f"defined: {', '.join(sorted(known)[:12])} ({home})"
    else:
        fix = f"define it in {home}"
    notes.error("undefined", place, f"{kind} {quoted(name)} is not defined", fix)


def home(shared: Shared, kind: str, fallback: str) -> str:
    """The file that defines things of a kind."""
    files = sorted({place.file for (k, _), place in shared.places.items() if k == kind})
    return ", ".join(files) or fallback


def _cross_check(shared: Shared, notes: Notes) -> None:
    for name, model in shared.models.items():
        if model.provider not in shared.providers:
            undefined(
                notes,
                shared.places["model", name],
                kind="provider",
                name=model.provider,
                known=list(shared.providers),
                home=home(shared, "provider", "gateway/models.yaml"),
            )
    for name, virtual in shared.virtual_models.items():
        for target in virtual.targets:
            if target not in shared.models:
                undefined(
                    notes,
                    shared.places["model", name],
                    kind="model",
                    name=target,
                    known=list(shared.models),
                    home=home(shared, "model", "gateway/models.yaml"),
                )
    for tool, fingerprint in shared.lock.tools.items():
        server, _, name = tool.partition(".")
        found = shared.servers.get(server)
        if found is None or name not in found.tools:
            notes.warn(
                "lock-stale",
                Place(LOCK),
                f"{tool} is locked but not declared",
                "refresh it with `interlock lock`",
            )
            continue
        tools = {
            **found.tools,
            name: found.tools[name].model_copy(update={"fingerprint": fingerprint}),
        }
        shared.servers[server] = found.model_copy(update={"tools": tools})
