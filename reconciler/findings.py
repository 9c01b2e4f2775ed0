"""A located problem: what `validate`, `lint`, `plan` and `compile` all speak in.

One type for all of them, so that a person meets one form of message everywhere:
`agents/ci/agent.yaml:7:3 model "smrt" is not defined; did you mean "smart"?`. Values that came
from a repository are escaped on the way out: a name in a pull request must not be able to move a
terminal's cursor or to fake a second line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from gateway.values import Json


class Severity(StrEnum):
    """`error` blocks (what it concerns does not go live), `warning` and `info` do not."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


_RANK = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written: repo-relative path, line and column counted from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{printable(self.file)}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem. `id` is stable, for suppressing and counting; `fix` says what to do next."""

    id: str
    severity: Severity
    file: str
    line: int
    column: int
    message: str
    fix: str = ""

    def __str__(self) -> str:
        """`file:line:column message; fix`, on one line, safe to print."""
        text = f"{self.message}; {self.fix}" if self.fix else self.message
        return f"{printable(self.file)}:{self.line}:{self.column} {printable(text)}"

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.file, self.line, self.column)

    def as_json(self) -> dict[str, Json]:
        """The fields by name, as `--json` prints them."""
        return {
            "id": self.id,
            "severity": self.severity.value,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "fix": self.fix,
        }


def tidy(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each finding once, by file, line, column, then the worst first."""
    return tuple(
        sorted(
            set(findings),
            key=lambda f: (f.file, f.line, f.column, _RANK[f.severity], f.id, f.message, f.fix),
        )
    )


def render(findings: Iterable[Finding]) -> str:
    """One finding a line, errors unmarked, the others marked; `""` when there are none."""
    return "\n".join(
        str(f) if f.severity is Severity.ERROR else f"{f} [{f.severity}]" for f in tidy(findings)
    )


def printable(text: str) -> str:
    """The text with every character that could steer a terminal shown as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(text: str, *, longest: int = 80) -> str:
    """A value from the repository, in quotes and shortened, for use inside a message."""
    shown = printable(text)
    return f'"{shown if len(shown) <= longest else shown[: longest - 1] + "…"}"'


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`did you mean "smart"?`, or `""` when nothing known is close."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {quoted(close[0])}?" if close else ""
