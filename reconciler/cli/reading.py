"""The verbs that only look: status, agents, runs, trace, costs. One read model feeds them all."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from gateway.clock import SystemClock
from gateway.database import Transaction
from gateway.values import show_usd
from reconciler.cli.options import NEGATIVE, fail, guarded, json_option, show_json, state_option
from reconciler.cli.table import moment, printable, short, table

NOTHING = "nothing has been reconciled here yet: `interlock reconcile --once --repo URL`"


@contextmanager
def snapshot(state: Path) -> Iterator[Transaction]:
    """The store of a state directory at one moment; leaves with a hint when there is none."""
    from reconciler.process.store import open_database

    if not (state / "interlock.sqlite").exists():
        fail(f"{state}: {NOTHING}", NEGATIVE)
    database = open_database(state)
    with database.snapshot() as tx:
        yield tx


def plain(value: Any) -> Any:
    """Dataclasses as JSON, for `--json`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


@click.command("status")
@state_option
@json_option
@guarded
def status_command(state: Path, as_json: bool) -> None:
    """What needs a look: open and recent rollouts, holds, stops, findings, alerts."""
    from reconciler.record import views

    with snapshot(state) as tx:
        now = SystemClock.from_environment(os.environ).now()
        fleet = views.fleet(tx, now)
        rollouts = views.rollouts(tx, limit=12)
    if as_json:
        show_json({"fleet": plain(fleet), "rollouts": plain(rollouts)})
        return
    running = sum(1 for agent in fleet.agents if agent.stable)
    click.echo(
        f"{len(fleet.agents)} loops, {running} live · {fleet.runs_week} runs in 7 days, "
        f"{fleet.accepted_week} accepted · {show_usd(fleet.cost_week_nano)}"
    )
    _section(
        "Rollouts",
        table(
            ("agent", "candidate", "state", "since (UTC)", "reason"),
            [
                (
                    r.agent + (f" (#{r.pull})" if r.pull else ""),
                    r.candidate,
                    r.state,
                    moment(r.since),
                    short(printable(r.reason), 90),
                )
                for r in rollouts
            ],
            right=frozenset(),
        )
        if rollouts
        else "none yet",
    )
    attention = [
        *(
            f"waits  {w.scope}: {w.what[0]}; decide with `interlock approve {w.id}`"
            for w in fleet.waiting
            if w.kind == "change"
        ),
        *(f"stop   {s.agent}: {s.reason} ({s.actor}, {moment(s.at)})" for s in fleet.stops),
        *(
            f"hold   {h.agent} ({h.kind}): {h.reason} ({h.actor}, {moment(h.at)})"
            for h in fleet.holds
        ),
        *(
            f"barred {q.digest} of {a.agent}: {q.reason}"
            for a in fleet.agents
            for q in a.quarantine
        ),
        *(f"broken {a.agent}: {text}" for a in fleet.agents for text in a.findings),
        *(f"error  {text}" for text in fleet.findings),
        *(f"alert  {a.text} ({moment(a.at)})" for a in fleet.alerts),
        *(
            f"note   {a.agent} has no gate: what is merged goes live, proven by nothing"
            for a in fleet.agents
            if a.gated is False
        ),
    ]
    seen = list(dict.fromkeys(printable(line) for line in attention))
    _section("Needs a look", "\n".join(seen) if seen else "nothing")


@click.command("agents")
@state_option
@json_option
@guarded
def agents_command(state: Path, as_json: bool) -> None:
    """The inventory: every loop, who owns it, what it runs on, what it costs."""
    from reconciler.record import views

    with snapshot(state) as tx:
        fleet = views.fleet(tx, SystemClock.from_environment(os.environ).now())
    if as_json:
        show_json(plain(fleet.agents))
        return
    if not fleet.agents:
        click.echo(NOTHING)
        return
    click.echo(
        table(
            (
                "agent",
                "team",
                "stable",
                "canary",
                "gate",
                "next run (UTC)",
                "last run",
                "7 days",
                "cost",
                "per accepted",
            ),
            [
                (
                    a.agent,
                    a.team,
                    a.stable or "-",
                    a.candidate or "-",
                    f"{a.cases} cases" if a.gated else "none",
                    moment(a.next_due),
                    (a.last_run.stop or a.last_run.status) if a.last_run else "-",
                    f"{a.runs_week} runs",
                    show_usd(a.cost_week_nano),
                    show_usd(a.cost_per_accepted_nano) if a.cost_per_accepted_nano else "-",
                )
                for a in fleet.agents
            ],
            right=frozenset({7, 8, 9}),
        )
    )


@click.command("runs")
@click.argument("agent", required=False)
@click.option("--limit", default=20, show_default=True, help="How many, newest first.")
@click.option("--evals", is_flag=True, help="Eval runs too.")
@state_option
@json_option
@guarded
def runs_command(agent: str | None, limit: int, evals: bool, state: Path, as_json: bool) -> None:
    """The runs of AGENT (or of all), newest first."""
    from reconciler.record import views

    with snapshot(state) as tx:
        runs = views.runs(tx, agent, None if evals else "live", limit)
    if as_json:
        show_json(plain(runs))
        return
    if not runs:
        click.echo(f"no runs{f' of {agent}' if agent else ''} yet")
        return
    click.echo(
        table(
            ("run", "agent", "occurrence", "release", "ended", "verdict", "steps", "cost", "why"),
            [
                (
                    r.run,
                    r.agent + (" (canary)" if r.rollout and r.purpose == "live" else ""),
                    short(r.occurrence, 34),
                    r.release,
                    r.stop or r.status,
                    r.verdict,
                    str(r.steps),
                    show_usd(r.cost_nano),
                    short(printable(r.detail), 60),
                )
                for r in runs
            ],
            right=frozenset({6, 7}),
        )
    )


@click.command("trace")
@click.argument("run")
@click.option("--full", is_flag=True, help="Inputs and outputs unabridged.")
@state_option
@json_option
@guarded
def trace_command(run: str, full: bool, state: Path, as_json: bool) -> None:
    """Every step of RUN, with role, tokens, cost and label, and why it ended."""
    show_trace(state, run, as_json=as_json, full=full)


def show_trace(state: Path, run: str, *, as_json: bool, full: bool = False) -> None:
    """Print one run's steps as a tree; exit code 1 when there is no such run."""
    from reconciler.record import views

    with snapshot(state) as tx:
        found = tx.read(
            "SELECT run FROM runs WHERE run = :run OR run LIKE :prefix ORDER BY run LIMIT 2",
            run=run,
            prefix=f"{run}%",
        )
        if not found:
            fail(f"there is no run {run!r}; `interlock runs` lists them", NEGATIVE)
        detail = views.run(tx, found[0]["run"])
    if as_json:
        show_json(plain(detail))
        return
    head, outcome = detail.run, detail.outcome
    click.echo(
        f"{click.style(head.run, bold=True)}  {head.agent} on {head.release}, {head.occurrence}"
    )
    started = head.started_at or head.created_at
    rows = []
    for depth, step in _steps(detail.trace.steps, 0):
        took = f"{step.duration_ms} ms" if step.duration_ms is not None else "open"
        told = printable(step.output or step.input)
        rows.append(
            (
                f"{(step.started_at - started) / 1000:.1f}s",
                f"{'  ' * depth}{step.path}",
                step.role,
                f"{step.kind} {step.name}",
                step.status,
                took,
                str(step.tokens or "-"),
                show_usd(step.cost_nano) if step.cost_nano else "-",
                step.label,
                told if full else short(told, 60),
            )
        )
    if rows:
        click.echo(
            table(
                (
                    "at",
                    "step",
                    "role",
                    "what",
                    "status",
                    "took",
                    "tokens",
                    "cost",
                    "label",
                    "result",
                ),
                rows,
                right=frozenset({0, 5, 6, 7}),
            )
        )
    else:
        click.echo("no step is recorded here; its report on the reports branch has them")
    if outcome is None:
        click.echo(f"\n{head.status}: not ended yet")
        return
    stall = f" ({outcome.stall})" if outcome.stall else ""
    click.echo(f"\nended: {click.style(f'{outcome.stop}{stall}', bold=True)}  {outcome.detail}")
    if outcome.accepted is not None:
        click.echo(f"accepted: {'yes' if outcome.accepted else 'no'}")
    for grade in outcome.grades:
        click.echo(f"  {grade.status:<7} {grade.check}  {short(printable(grade.detail), 90)}")
    if outcome.changed:
        click.echo(f"changed: {', '.join(outcome.changed)}")
    for role, cost, tokens in _by_role(detail.calls):
        click.echo(f"  {role:<10} {show_usd(cost):>9}  {tokens:>7} tokens")
    click.echo(f"  {'all':<10} {show_usd(head.cost_nano):>9}  {outcome.tokens:>7} tokens")


def _steps(steps: Any, depth: int) -> Iterator[tuple[int, Any]]:
    for step in steps:
        yield depth, step
        yield from _steps(step.steps, depth + 1)


def _by_role(calls: Any) -> list[tuple[str, int, int]]:
    spent: dict[str, tuple[int, int]] = {}
    for call in calls:
        cost, tokens = spent.get(call.role, (0, 0))
        spent[call.role] = (
            cost + call.cost_nano,
            tokens + call.input_tokens + call.output_tokens,
        )
    return [(role, *figures) for role, figures in sorted(spent.items())]


@click.command("costs")
@click.option(
    "--by",
    default="agent",
    show_default=True,
    help="Any of agent, team, model, role, day, purpose; with commas between.",
)
@click.option("--since", default="30d", show_default=True, help="How far back, e.g. 7d or 24h.")
@state_option
@json_option
@guarded
def costs_command(by: str, since: str, state: Path, as_json: bool) -> None:
    """The meter: what was spent, from the ledger. Open reservations count at worst case."""
    from gateway.values import Millis
    from reconciler.operations.repository import duration
    from reconciler.record import views

    columns = tuple(name.strip() for name in by.split(",") if name.strip())
    try:
        back = duration(since)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None
    with snapshot(state) as tx:
        now = SystemClock.from_environment(os.environ).now()
        try:
            lines = views.costs(tx, columns, Millis(now - back))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--by") from None
    if as_json:
        show_json(plain(lines))
        return
    if not lines:
        click.echo(f"nothing was spent in the last {since}")
        return
    rows = [
        (
            *(value for _, value in line.by),
            str(line.calls),
            f"{line.input_tokens:,}",
            f"{line.output_tokens:,}",
            show_usd(line.cost_nano),
        )
        for line in lines
    ]
    width = len(columns)
    click.echo(
        table(
            (*columns, "calls", "tokens in", "tokens out", "cost"),
            rows,
            right=frozenset(range(width, width + 4)),
        )
    )
    click.echo(f"total {show_usd(sum(line.cost_nano for line in lines))}")


def _section(title: str, body: str) -> None:
    click.echo()
    click.echo(click.style(title, bold=True))
    click.echo(body)
