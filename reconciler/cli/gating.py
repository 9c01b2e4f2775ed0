"""`interlock eval` and `interlock gate`: an agent's suite, graded or decided, on request."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from gateway.values import show_usd
from reconciler.cli.options import (
    NEGATIVE,
    WAITING,
    guarded,
    json_option,
    repo_option,
    show_json,
    state_option,
)

SLOTS = click.option(
    "--slots", default=4, show_default=True, help="Runs executed at the same time."
)


def _watch(quiet: bool):  # type: ignore[no-untyped-def]
    live = sys.stdout.isatty() and not quiet

    def show(graded: int, planned: int) -> None:
        if live and planned:
            filled = 30 * graded // planned
            bar = "━" * filled + "─" * (30 - filled)
            click.echo(f"\r\x1b[2Kevals {bar} {graded}/{planned}", nl=False)
            if graded == planned:
                click.echo("\r\x1b[2K", nl=False)

    return show


def _cases(result, arms: tuple[str, ...]) -> list[dict[str, object]]:  # type: ignore[no-untyped-def]
    rows: list[dict[str, object]] = []
    for case in result.cases:
        row: dict[str, object] = {"case": case}
        for arm in arms:
            attempts = result.evidence.of_case(arm, case)
            row[arm] = {
                "passed": sum(a.status == "passed" for a in attempts),
                "attempts": len(attempts),
                "errors": sum(a.status == "error" for a in attempts),
                "cost_nano": sum(a.cost_nano for a in attempts),
                "detail": next((a.detail for a in attempts if a.status != "passed"), ""),
            }
        rows.append(row)
    return rows


def _table(rows: list[dict[str, object]], arms: tuple[str, ...]) -> None:
    width = max((len(str(row["case"])) for row in rows), default=4)
    click.echo(f"{'case':<{width}}  " + "  ".join(f"{arm:>9}" for arm in arms))
    for row in rows:
        cells, detail = [], ""
        for arm in arms:
            cell = row[arm]
            assert isinstance(cell, dict)
            text = f"{cell['passed']}/{cell['attempts']}"
            good = cell["passed"] == cell["attempts"]
            cells.append(click.style(f"{text:>9}", fg="green" if good else "red"))
            if arm == "candidate" and not good:
                detail = str(cell["detail"])[:70]
        click.echo(f"{row['case']!s:<{width}}  " + "  ".join(cells) + f"  {detail}".rstrip())


@click.command("eval")
@click.argument("agent")
@click.option("--attempts", default=1, show_default=True, help="Attempts per case.")
@SLOTS
@state_option
@repo_option
@json_option
@guarded
def eval_command(
    agent: str,
    attempts: int,
    slots: int,
    state: Path,
    repo: str | None,
    branch: str | None,
    as_json: bool,
) -> None:
    """Run AGENT's suite on what the branch declares, and show the grades. Decides nothing.

    Exit code 1 when a case did not pass.
    """
    from reconciler.process.compose import Options
    from reconciler.process.evaluate import evaluate

    result = evaluate(
        Options(state, repo, branch, slots=slots),
        os.environ,
        agent,
        gate=False,
        attempts=attempts,
        watch=_watch(as_json),
    )
    rows = _cases(result, ("candidate",))
    graded = [a for group in result.evidence.attempts.values() for a in group]
    passed = sum(a.status == "passed" for a in graded)
    if as_json:
        show_json({"agent": agent, "release": result.candidate, "cases": rows})
    else:
        _table(rows, ("candidate",))
        cost = sum(a.cost_nano for a in graded)
        click.echo(f"{result.candidate}: {passed} of {len(graded)} passed, {show_usd(cost)}")
    sys.exit(0 if passed == len(graded) else NEGATIVE)


@click.command("gate")
@click.argument("agent")
@SLOTS
@state_option
@repo_option
@json_option
@guarded
def gate_command(
    agent: str, slots: int, state: Path, repo: str | None, branch: str | None, as_json: bool
) -> None:
    """Decide what the branch asks for against what is live, as a rollout would.

    Exit code 0 pass, 1 fail, 4 hold. No pointer moves.
    """
    from reconciler.process.compose import Options
    from reconciler.process.evaluate import evaluate

    result = evaluate(
        Options(state, repo, branch, slots=slots),
        os.environ,
        agent,
        gate=True,
        watch=_watch(as_json),
    )
    assert result.reading is not None
    arms = ("candidate", "stable") if result.stable else ("candidate",)
    rows = _cases(result, arms)
    if as_json:
        show_json(
            {
                "agent": agent,
                "candidate": result.candidate,
                "stable": result.stable,
                "look": result.look,
                "gate": result.reading.document(),
                "cases": rows,
            }
        )
    else:
        _table(rows, arms)
        for check in result.reading.checks:
            click.echo(f"{check.verdict:<5} {check.text}")
        colour = {"pass": "green", "fail": "red"}.get(str(result.reading.decision), "yellow")
        click.echo(
            f"{click.style(str(result.reading.decision), fg=colour)}: {result.candidate} against "
            f"{result.stable or 'the threshold of a first release'}, {result.look} attempts a case"
        )
    sys.exit({"pass": 0, "fail": NEGATIVE}.get(str(result.reading.decision), WAITING))
