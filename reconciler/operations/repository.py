"""What can be done with a config repo in a work directory, before anything is pushed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.values import AgentName, ReleaseDigest
from reconciler.config import Loaded
from reconciler.config.load import load
from reconciler.config.models.fields import parse_duration
from reconciler.config.versions import NO_HISTORY, History, Released
from reconciler.findings import Finding, Severity, tidy
from reconciler.operations.outcome import Refused
from reconciler.release import Release, compile_fleet
from reconciler.source.tree import DirectoryTree, Tree


@dataclass(frozen=True, slots=True)
class Validated:
    """Everything found, worst first per place, and the digests of what compiles."""

    findings: tuple[Finding, ...]
    releases: Mapping[AgentName, ReleaseDigest]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that keep something from going live."""
        return tuple(f for f in self.findings if f.severity is Severity.ERROR)


@dataclass(frozen=True, slots=True)
class Read:
    """A work directory as a commit of it would be read.

    `history` is what its versions were judged by, for whoever loads more of the same; `notes` are
    findings about that history.
    """

    tree: DirectoryTree
    loaded: Loaded
    history: History
    notes: tuple[Finding, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything found, by place."""
        return tidy([*self.loaded.findings, *self.notes])


class _Unasked:
    """No history, remembering whether anybody wanted one."""

    def __init__(self) -> None:
        self.asked = False

    @property
    def absent(self) -> str | None:
        """See `History`; so with the rest."""
        self.asked = True
        return NO_HISTORY.absent

    def released(self, path: str, number: int) -> Released | None:
        self.asked = True
        return None

    def numbers(self, path: str) -> tuple[int, ...]:
        return ()

    def content(self, released: Released) -> Tree | None:
        return None

    def at(self, commit: str) -> Tree | None:
        self.asked = True
        return None


def read(directory: Path) -> Read:
    """Load a work directory, its versions judged by what the watched branch has released.

    The past is looked at only when something declares or pins a version, and is that of the branch
    that the fleet watches: so the directory is loaded once to know both, and once more with the
    history where there is a question for it. A directory outside git has none, which is fine.
    """
    tree = DirectoryTree(directory)
    unasked = _Unasked()
    loaded = load(tree, history=unasked)
    if loaded.fleet is None or not unasked.asked:
        return Read(tree, loaded, NO_HISTORY)
    from reconciler.config.history import history_of  # brings pygit2: 90 ms that few need

    history, notes = history_of(directory, branch=loaded.fleet.branch)
    return Read(tree, load(tree, history=history, previous=loaded), history, notes)


def validate(directory: Path) -> Validated:
    """Load and compile a work directory as a commit would be. Never raises for what is in it."""
    found = read(directory)
    findings = list(found.findings)
    releases: dict[AgentName, ReleaseDigest] = {}
    if found.loaded.fleet is not None:
        for agent, result in compile_fleet(found.loaded.fleet).items():
            if isinstance(result, Release):
                releases[agent] = result.digest
            else:
                findings += result
    return Validated(tidy(findings), dict(sorted(releases.items())))


def lock(directory: Path, images: Mapping[str, str]) -> Path:
    """Write image digests into DIRECTORY/interlock.lock; returns the file."""
    from reconciler.config.lockfile import write_images  # brings ruamel.yaml

    return write_images(directory, images)


@dataclass(frozen=True, slots=True)
class Locked:
    """What became of the fingerprints, in sentences: what `changed`, `problems` that a person must
    look at (a tool with a problem keeps what was locked), and `notes` on what was left alone."""

    changed: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


Catalogue = Mapping[str, str]
"""Tool → fingerprint, as a server describes its tools now."""


def tools_to_lock(directory: Path) -> dict[str, dict[str, str | None]]:
    """Server → its classified tools with what is locked of each. Raises Refused when the directory
    does not say so without errors."""
    fleet = read(directory).loaded.fleet
    if fleet is None:
        raise Refused(f"{directory} has errors in files that all share; see `interlock validate`")
    return {
        name: {tool: declared.fingerprint for tool, declared in sorted(server.tools.items())}
        for name, server in sorted(fleet.platform.servers.items())
        if server.tools
    }


def lock_tools(directory: Path, answers: Mapping[str, Catalogue | str]) -> Locked:
    """Write fingerprints into DIRECTORY/interlock.lock; other entries and comments stay.

    `answers` has each server that was asked: its tools, or why it could not be asked. Entries of
    tools that are not declared any more go away.
    """
    from reconciler.config.lockfile import locked, write_tools  # brings ruamel.yaml

    changed: list[str] = []
    problems: list[str] = []
    notes: list[str] = []
    wanted: dict[str, str] = {}
    declared = tools_to_lock(directory)
    for server, tools in declared.items():
        answer = answers.get(server, "not asked")
        if isinstance(answer, str):
            problems.append(f"{server}: {answer}")
            continue
        for tool, before in tools.items():
            now, full = answer.get(tool), f"{server}.{tool}"
            if now is None:
                kept = "it stays locked" if before is not None else "there is nothing to lock"
                problems.append(
                    f"{full}: the server has no such tool{' any more' if before else ''}; {kept}. "
                    "Correct gateway/mcp-servers.yaml"
                )
            elif now != before:
                wanted[full] = now
                changed.append(f"{full}: {_short(before)} → {_short(now)}")
        more = sorted(answer.keys() - tools.keys())
        if more:
            notes.append(f"{server}: not classified, so not locked: {', '.join(more)}")
    known = {f"{server}.{tool}" for server, tools in declared.items() for tool in tools}
    gone = sorted(set(locked(directory)) - known)
    changed += [f"{tool}: not declared any more, removed" for tool in gone]
    if wanted or gone:
        write_tools(directory, wanted, drop=gone)
    return Locked(tuple(changed), tuple(problems), tuple(notes))


def _short(fingerprint: str | None) -> str:
    return "new" if fingerprint is None else fingerprint[:19]


def duration(text: str) -> int:
    """`20m`, `2h`, `14d` in milliseconds; ValueError tells how to write one."""
    return int(parse_duration(text))
