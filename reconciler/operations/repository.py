"""What can be done with a config repo in a work directory, before anything is pushed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.values import AgentName, ReleaseDigest
from reconciler.config.load import load
from reconciler.config.lockfile import write_images
from reconciler.config.models.fields import parse_duration
from reconciler.findings import Finding, Severity, tidy
from reconciler.release import Release, compile_fleet
from reconciler.source.tree import DirectoryTree


@dataclass(frozen=True, slots=True)
class Validated:
    """Everything found, worst first per place, and the digests of what compiles."""

    findings: tuple[Finding, ...]
    releases: Mapping[AgentName, ReleaseDigest]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that keep something from going live."""
        return tuple(f for f in self.findings if f.severity is Severity.ERROR)


def validate(directory: Path) -> Validated:
    """Load and compile a work directory as a commit would be. Never raises for what is in it."""
    loaded = load(DirectoryTree(directory))
    findings = list(loaded.findings)
    releases: dict[AgentName, ReleaseDigest] = {}
    if loaded.fleet is not None:
        for agent, result in compile_fleet(loaded.fleet).items():
            if isinstance(result, Release):
                releases[agent] = result.digest
            else:
                findings += result
    return Validated(tidy(findings), dict(sorted(releases.items())))


def lock(directory: Path, images: Mapping[str, str]) -> Path:
    """Write image digests into DIRECTORY/interlock.lock; returns the file."""
    return write_images(directory, images)


def duration(text: str) -> int:
    """`20m`, `2h`, `14d` in milliseconds; ValueError tells how to write one."""
    return int(parse_duration(text))
