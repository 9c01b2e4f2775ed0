"""What a person sees while a job works: one line per decision, one moving line for the evals."""

from __future__ import annotations

import shutil
import sys
from types import TracebackType

import click

from reconciler.cli.table import printable, short
from reconciler.process.loop import Context, Progress


class Watcher:
    """Prints what is new after each tick. On a terminal the last line moves; in a log it does not.

    `events` keeps what was printed, for `--json`.
    """

    def __init__(self, *, quiet: bool = False, indent: str = "") -> None:
        self._quiet = quiet
        self._indent = indent
        self._live = sys.stdout.isatty() and not quiet
        # A log keeps whole sentences; a terminal gets one line each, the record has the rest.
        self._width = shutil.get_terminal_size().columns - len(indent) if self._live else 10_000
        self._moving = ""
        self._problems: set[str] = set()
        self._seq: int | None = None
        self.events: list[str] = []

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clear()

    def watch(self, context: Context, progress: Progress) -> None:
        """Called after each tick."""
        if self._seq is None:
            # Only what happens from now on is news.
            row = context.database.one(
                "SELECT min(seq) AS seq FROM audit WHERE at >= :now",
                now=context.clock.now() - 5_000,
            )
            self._seq = (row["seq"] - 1) if row and row["seq"] else self._last(context)
        for row in context.database.read(
            "SELECT * FROM audit WHERE seq > :seq ORDER BY seq", seq=self._seq
        ):
            self._seq = row["seq"]
            self._line(_sentence(row, self._width))
        for note in progress.notes:
            self._line(note)
        for problem in progress.ticked.problems:
            if problem not in self._problems:
                self._problems.add(problem)
                self._line(click.style("problem  ", fg="yellow") + problem)
        self._move(context)

    def _last(self, context: Context) -> int:
        row = context.database.one("SELECT coalesce(max(seq), 0) AS seq FROM audit")
        return int(row["seq"]) if row else 0

    def _line(self, text: str) -> None:
        self.events.append(click.unstyle(text))
        if not self._quiet:
            self._clear()
            click.echo(self._indent + text)

    def _move(self, context: Context) -> None:
        if not self._live:
            return
        rows = context.database.read(
            "SELECT purpose, status, count(*) AS n FROM runs r WHERE r.status <> 'finished' OR"
            " (r.purpose = 'eval' AND r.rollout IN (SELECT rollout FROM rollouts"
            " WHERE closed_at IS NULL)) GROUP BY purpose, status"
        )
        counts = {(row["purpose"], row["status"]): row["n"] for row in rows}
        total = sum(n for (purpose, _), n in counts.items() if purpose == "eval")
        done = counts.get(("eval", "finished"), 0)
        live = sum(n for (purpose, s), n in counts.items() if purpose == "live" and s != "finished")
        parts = []
        if total and done < total:
            filled = 30 * done // total
            parts.append(f"evals {'━' * filled}{'─' * (30 - filled)} {done}/{total}")
        if live:
            parts.append(f"{live} live run{'s' * (live != 1)}")
        text = "  ".join(parts)
        if text != self._moving:
            self._clear()
            if text:
                click.echo(f"{self._indent}{text}", nl=False)
            self._moving = text

    def _clear(self) -> None:
        if self._moving:
            click.echo("\r\x1b[2K", nl=False)
            self._moving = ""


_WORDS = {
    "commit.seen": ("commit", "blue"),
    "rollout.open": ("rollout", "blue"),
    "rollout.canary": ("canary", "cyan"),
    "rollout.promoted": ("promoted", "green"),
    "rollout.rejected": ("rejected", "red"),
    "rollout.held": ("held", "yellow"),
    "rollout.cancelled": ("cancelled", "yellow"),
    "rollout.rolled_back": ("rolled back", "red"),
    "rollout.judged": ("judged", "cyan"),
    "rollout.awaiting_approval": ("waiting", "yellow"),
    "in_force.baseline": ("baseline", "blue"),
    "in_force.waits": ("waiting", "yellow"),
    "in_force.approved": ("in force", "green"),
    "approve": ("approved", "green"),
    "pull.reject": ("refused", "red"),
    "run.start": ("run", "blue"),
    "run.end": ("ended", "blue"),
}


def _sentence(row: dict[str, object], width: int) -> str:
    action = str(row["action"])
    word, colour = _WORDS.get(action, (action, "blue"))
    reason = short(printable(str(row["reason"])), max(40, width - 31))
    subject = str(row["subject"])[:12] if action == "commit.seen" else str(row["agent"] or "")
    return f"{click.style(f'{word:<12}', fg=colour)}{subject:<17} {reason}"
