"""Which agents may be used and which are broken, once each was read and all were compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from gateway.values import AgentName
from reconciler.config.collisions import Collisions
from reconciler.config.drafts import AGENTS, Draft, Folder
from reconciler.config.fleet import AgentConfig
from reconciler.findings import Finding, Severity, tidy

V = TypeVar("V")
Folders = Mapping[str, Folder]
Extra = Mapping[str, list[Finding]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`agents` and `broken` by name, in order."""

    blocked: tuple[Finding, ...]
    """Errors in what all agents share: with any, no agent may be used."""
    extra: Extra
    """What collides, by path of the agent's file."""
    refused: frozenset[str]
    """Paths of those among them that are errors."""
    agents: Mapping[AgentName, AgentConfig]
    broken: Mapping[AgentName, tuple[Finding, ...]]
    moved: frozenset[AgentName] | None = None
    """All that may differ from the outcome before; None: it was not made from one."""

    def findings(self, folders: Iterable[Folder]) -> Iterator[Finding]:
        """Those of agents, in any order; of the folders that have some."""
        for folder in folders:
            for draft in folder.drafts:
                yield from draft.form if self.blocked else draft.findings
        for some in self.extra.values():
            yield from some


def outcome_of(
    folders: Folders,
    collisions: Collisions,
    blocked: tuple[Finding, ...],
    *,
    before: Outcome | None = None,
    changed: Iterable[Draft] = (),
) -> Outcome:
    """The outcome for all; from `before`, when only these drafts went, came or changed."""
    extra = collisions.findings(names_only=bool(blocked))
    refused = frozenset(
        path for path, some in extra.items() if any(f.severity is Severity.ERROR for f in some)
    )
    if before is None or blocked or before.blocked:
        drafts = [draft for folder in folders.values() for draft in folder.drafts]
        agents = {d.name: d.config for d in drafts if d.config and _usable(d, refused)}
        broken: dict[AgentName, tuple[Finding, ...]] = {}
        if blocked:
            for draft in drafts:
                _add(broken, draft, draft.form, extra, blocked)
            return Outcome(blocked, extra, refused, {}, _ordered(broken))
        for draft in drafts:
            if not _usable(draft, refused):
                _add(broken, draft, draft.findings, extra, ())
        return Outcome(blocked, extra, refused, _ordered(agents), _ordered(broken))
    moved = {path for path in extra.keys() | before.extra.keys()
             if extra.get(path) != before.extra.get(path)}  # fmt: skip
    names = {draft.name for draft in changed}
    names |= {draft.name for path in moved for draft in _at(folders, path)}
    now, bad = dict(before.agents), dict(before.broken)
    for name in names:
        config, found = None, dict[AgentName, tuple[Finding, ...]]()
        for holder in collisions.names.get(name, ()):
            for draft in _at(folders, holder.path):
                if _usable(draft, refused):
                    config = draft.config
                else:
                    _add(found, draft, draft.findings, extra, ())
        _set(now, name, config)
        _set(bad, name, found.get(name))
    if not names.issubset(before.agents):
        now = _ordered(now)
    return Outcome(blocked, extra, refused, now, _ordered(bad), frozenset(names))


def _set(found: dict[AgentName, V], name: AgentName, value: V | None) -> None:
    if value is None:
        found.pop(name, None)
    else:
        found[name] = value


def _at(folders: Folders, path: str) -> list[Draft]:
    folder = folders.get(path.removeprefix(f"{AGENTS}/").partition("/")[0])
    return [draft for draft in folder.drafts if draft.path == path] if folder else []


def _usable(draft: Draft, refused: frozenset[str]) -> bool:
    return not draft.failed and draft.path not in refused


def _add(
    broken: dict[AgentName, tuple[Finding, ...]],
    draft: Draft,
    own: tuple[Finding, ...],
    extra: Extra,
    blocked: tuple[Finding, ...],
) -> None:
    more = extra.get(draft.path, ())
    known = broken.get(draft.name, blocked)
    broken[draft.name] = tidy((*known, *own, *more)) if own or more else known


def _ordered(found: dict[AgentName, V]) -> dict[AgentName, V]:
    names = list(found)
    ordered = sorted(names)
    return found if names == ordered else {name: found[name] for name in ordered}
