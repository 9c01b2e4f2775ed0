"""One folder of agents/ on its way to configs: what can be said of it without the others."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.values import AgentName
from reconciler.config import hints
from reconciler.config.agents import resolve_agent
from reconciler.config.collisions import Holder
from reconciler.config.fleet import AgentConfig
from reconciler.config.models.agent import AgentFile
from reconciler.config.models.fields import NAME
from reconciler.config.positions import Document
from reconciler.config.reader import Notes, Reader
from reconciler.config.shapes import kind_of
from reconciler.config.shared import Shared
from reconciler.config.tracing import Need
from reconciler.findings import Finding, Place, did_you_mean, quoted
from reconciler.source.tree import Kind, UnsafePath
from reconciler.source.watched import Of

AGENTS = "agents"


@dataclass(frozen=True, slots=True)
class Draft:
    """One agent's file: a config, or findings that say why there is none, or both."""

    path: str
    name: AgentName
    place: Place
    """Of its name."""
    config: AgentConfig | None
    findings: tuple[Finding, ...]
    """All of its own."""
    form: tuple[Finding, ...]
    """Those of its own text; the others depend on what it refers to."""
    failed: bool
    """Whether it must not be used."""

    @property
    def holder(self) -> Holder:
        """As far as others are concerned."""
        owns = self.config.owns if self.config is not None else None
        formerly = self.config.formerly if self.config is not None else None
        return Holder(self.path, self.name, self.place, owns, formerly)


@dataclass(frozen=True, slots=True)
class Folder:
    """agents/<name>/ as it was read, and what that was made from outside of it."""

    drafts: tuple[Draft, ...]
    needs: frozenset[Need]
    resolved: bool
    """False while the shared files are in error: then references mean nothing."""


def read_folder(reader: Reader, folder: str, shared: Shared | None) -> Folder:
    """Every agent of a folder, resolved when `shared` is given."""
    home = f"{AGENTS}/{folder}"
    with reader.at_home(home) as needs:
        drafts = tuple(_drafts(reader, home, folder, shared))
    return Folder(drafts, _foreign(reader, needs, home), shared is not None)


def _foreign(reader: Reader, needs: set[Need], home: str) -> frozenset[Need]:
    """Without the needs in the folder itself: any change there is looked at anyway."""
    inside, same = f"{home}/", reader.same
    return same(
        frozenset(
            same(need)
            for need in needs
            if not isinstance(need[0], Of) or not (need[1] == home or need[1].startswith(inside))
        )
    )


def _drafts(reader: Reader, home: str, folder: str, shared: Shared | None) -> list[Draft]:
    try:
        names = reader.names(home, Kind.BLOB, Kind.LINK)
    except UnsafePath as unsafe:
        # A folder that cannot be listed is still an agent that was meant to be there.
        notes = Notes()
        notes.error("unsafe-path", Place(home), str(unsafe))
        found = tuple(notes.findings)
        return [Draft(home, AgentName(folder), Place(home), None, found, found, True)]
    return [
        _draft(reader, f"{home}/{name}", folder, shared)
        for name in names
        if name.endswith((".yaml", ".yml")) and not name.startswith(".")
    ]


def _draft(reader: Reader, path: str, folder: str, shared: Shared | None) -> Draft:
    document = reader.document(path)
    notes, config = Notes(), None
    if document.understood and kind_of(document) is not AgentFile:
        keys = list(document.data) if isinstance(document.data, dict) else []
        key = keys[0] if keys else ""
        notes.error(
            "unknown-kind",
            document.at([key], key=True),
            f"{quoted(key)} does not belong here" if keys else "the file says nothing",
            hints.for_document(document.data)
            or did_you_mean(key, list(AgentFile.model_fields))
            or "known here: agent",
        )
        form = tuple(notes.findings)
    else:
        value = reader.shaped(document, AgentFile, notes)
        form = tuple(notes.findings)
        if value is not None and shared is not None:
            config = resolve_agent(value, document, reader, shared, notes)
    place = document.at(["agent", "name"])
    name, found = _name(document, folder), tuple(notes.findings)
    return Draft(path, name, place, config, found, form, config is None or notes.failed)


def _name(document: Document, folder: str) -> AgentName:
    """The agent's name, or its folder's while the file cannot be understood."""
    data = document.data
    agent = data.get("agent") if isinstance(data, dict) else None
    name = agent.get("name") if isinstance(agent, dict) else None
    return AgentName(name if isinstance(name, str) and NAME.fullmatch(name) else folder)
