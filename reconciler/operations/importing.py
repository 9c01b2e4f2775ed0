"""`interlock import`: agents and skills of other tools into a config repo.

Skills first, because agents name them. Each thing is checked by loading the repository with it
laid over; what would not be valid is left out and said, the rest is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.policy import Access
from reconciler.config import importers
from reconciler.config.importers import Brought, Known, SkillSource, TextSource
from reconciler.findings import printable
from reconciler.operations.authoring import (
    Repository,
    WrongUsage,
    checked_name,
    open_repository,
    slug,
    write_files,
)
from reconciler.operations.outcome import Refused


@dataclass(frozen=True, slots=True)
class Item:
    """One loop or skill that was brought over."""

    kind: str
    """`loop` or `skill`."""
    name: str
    called: str
    """Its name where it comes from."""
    brought: tuple[str, ...]
    left: tuple[str, ...]
    """What could not be brought over or was changed, each with the reason."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made. `refused` names what was not brought over at all, with the reason."""

    root: Path
    files: tuple[str, ...]
    items: tuple[Item, ...]
    refused: tuple[str, ...]
    unseen: tuple[str, ...]
    """What lay beside it and is not for an import."""
    next: tuple[str, ...]


@dataclass
class _Haul:
    """What has been collected so far."""

    repository: Repository
    files: dict[str, bytes] = field(default_factory=dict)
    skills: dict[str, bytes] = field(default_factory=dict)
    """Those of `files` that loops may refer to."""
    executable: set[str] = field(default_factory=set)
    items: list[Item] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def free(self, kind: str, folder: str, name: str, shown: str) -> bool:
        """Whether agents/<name> or skills/<name> may still be made; says so if not."""
        twin = any(item.kind == kind and item.name == name for item in self.items)
        if not twin and not self.repository.has(f"{folder}/{name}"):
            return True
        where = "another of this import" if twin else f"{folder}/{name}"
        fix = "give it another with --name" if kind == "loop" else "rename its folder"
        self.refused.append(f"{shown}: {kind} {name} exists already ({where}); {fix}")
        return False


def bring_in(
    path: Path,
    directory: Path,
    *,
    name: str | None = None,
    team: str | None = None,
    model: str | None = None,
) -> Imported:
    """Import what is at `path` into the repository that `directory` is in.

    `name` is for a single agent or skill; `team` and `model` are for every agent. WrongUsage when
    nothing importable is there or an option cannot be meant; Refused when nothing was brought.
    """
    repository = open_repository(directory)
    sources = importers.find_sources(path)
    if not sources.agents and not sources.skills and not sources.refused:
        raise WrongUsage(
            f"{path}: there is no agent (Markdown with front matter) and no skill (SKILL.md)"
        )
    if name is not None:
        checked_name("agent" if sources.agents else "skill", name)
        if len(sources.agents) + len(sources.skills) > 1:
            raise WrongUsage("--name is for one agent or skill, and there are more")
    owner = repository.team(team) if sources.agents else None
    chosen = repository.model(model)
    haul = _Haul(repository, refused=list(sources.refused))
    for skill in sources.skills:
        _take_skill(skill, name, haul)
    known = _known(repository, haul)
    for agent in sources.agents:
        _take_agent(agent, name, owner, chosen, known, haul)
    if not haul.items:
        raise Refused("nothing was brought over:\n" + "\n".join(f"  {r}" for r in haul.refused))
    write_files(repository.root, haul.files, executable=frozenset(haul.executable))
    return Imported(
        repository.root,
        tuple(sorted(haul.files)),
        tuple(haul.items),
        tuple(haul.refused),
        tuple(sources.unseen),
        _next(repository, haul.items),
    )


def _next(repository: Repository, items: Iterable[Item]) -> tuple[str, ...]:
    loops = [item.name for item in items if item.kind == "loop"]
    commands = [f"interlock validate {repository.shown('')}".rstrip()]
    if not loops:
        names = ", ".join([item.name for item in items if item.kind == "skill"][:3])
        commands.insert(0, f"add {names} to `skills:` of the loops that need it")
    else:
        path = repository.shown(f"agents/{loops[0]}/agent.yaml")
        commands.insert(0, f"edit {path}      # when it runs: trigger; what else it may use")
    return tuple(commands)


def _known(repository: Repository, haul: _Haul) -> Known:
    assert repository.loaded.fleet is not None
    platform = repository.loaded.fleet.platform
    servers = {
        server: {
            tool: (found := platform.tool(f"{server}.{tool}")) is not None
            and Access.DESTRUCTIVE in found.access
            for tool in declared.tools
        }
        for server, declared in platform.servers.items()
    }
    skills = {item.name for item in haul.items if item.kind == "skill"}
    return Known(tuple(repository.models), servers, frozenset(skills | repository.skills()))


def _take_skill(source: SkillSource, name: str | None, haul: _Haul) -> None:
    wanted = name or slug(importers.skill_name(source.text)) or slug(source.stem)
    if not wanted:
        haul.refused.append(f"{source.shown}: no name can be made of it; rename its folder")
        return
    if not haul.free("skill", "skills", wanted, source.shown):
        return
    made = importers.brought_skill(source.text, name=wanted)
    files = {f"skills/{wanted}/{path}": content for path, content in source.files.items()}
    if made.changed:
        files[f"skills/{wanted}/SKILL.md"] = made.text.encode()
    wrong = haul.repository.wrong_with(files)
    if wrong:
        haul.refused.append(f"{source.shown}: {printable('; '.join(str(f) for f in wrong[:3]))}")
        return
    haul.files |= files
    haul.skills |= files
    haul.executable |= {f"skills/{wanted}/{path}" for path in source.executable}
    count = len(files)
    left = (*made.changed, *source.left)
    brought = (f"{count} file{'s' * (count != 1)}",)
    called = importers.skill_name(source.text) or source.stem
    haul.items.append(Item("skill", wanted, called, brought, left))


def _take_agent(
    source: TextSource,
    name: str | None,
    team: str | None,
    model: str | None,
    known: Known,
    haul: _Haul,
) -> None:
    first = importers.brought_agent(
        source.text, stem=source.stem, name="x", known=known, source=source.shown
    )
    wanted = name or slug(first.called) or slug(source.stem)
    if not wanted:
        haul.refused.append(f"{source.shown}: no name can be made of it; import it with --name")
        return
    if not haul.free("loop", "agents", wanted, source.shown):
        return
    made: Brought = replace(
        first,
        draft=replace(first.draft, name=wanted, team=team, model=first.draft.model or model),
    )
    try:
        files, _ = haul.repository.fitted(
            made.draft, instructions=made.instructions, beside=haul.skills
        )
    except Refused as refused:
        haul.refused.append(f"{source.shown}: {refused}")
        return
    haul.files |= files
    haul.items.append(Item("loop", wanted, made.called, made.brought, made.left))
