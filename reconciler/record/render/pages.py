"""Which files of the record a thing has, and their content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from gateway.database import Row, Transaction
from gateway.values import Millis
from reconciler.record import documents, views
from reconciler.record.calendar import DAY_MS, day, days_back
from reconciler.record.render import charts, markdown

if TYPE_CHECKING:
    import jinja2

CHART_DAYS = 30
RUNS_SHOWN = 20
ROLLOUTS_SHOWN = 10
LAST_TICK = "Last tick: "
"""How the line of the fleet's page begins that changes when nothing else does."""

STATES = {
    "promoted": "✓ promoted",
    "rejected": "✗ rejected",
    "rolled_back": "↩ rolled back",
    "cancelled": "cancelled",
    "held": "held: a person decides",
    "canary": "canary",
    "evaluating": "evaluating",
    "awaiting_approval": "awaiting approval",
    "judged": "judged on its pull request",
}
VERDICTS = {"good": "✓ good", "bad": "✗ bad", "none": "–"}
MARKS = {"pass": "✓", "fail": "✗", "hold": "?", "more": "…"}


def fleet_page(fleet: views.FleetView, *, now: Millis, tick: int) -> bytes:
    """`README.md`."""
    return _render("fleet.md.j2", fleet=fleet, now=now, tick=tick)


def without_time(page: bytes) -> bytes:
    """The fleet's page without the line that tells when it was written."""
    start = LAST_TICK.encode()
    return b"\n".join(line for line in page.split(b"\n") if not line.startswith(start))


def agent_files(tx: Transaction, agent: views.AgentView, now: Millis) -> dict[str, bytes]:
    """`agents/<name>/README.md` and its charts."""
    folder = f"agents/{agent.agent}"
    since = days_back(now, CHART_DAYS)
    days = [day(since + i * DAY_MS) for i in range(CHART_DAYS)]
    cost: dict[str, list[int]] = {"live": [0] * CHART_DAYS, "eval": [0] * CHART_DAYS}
    for line in views.costs(tx, ("day", "purpose"), since, agent.agent):
        told = dict(line.by)
        if told["day"] in days:
            cost[told["purpose"]][days.index(told["day"])] = line.cost_nano
    verdicts = {word: [0] * CHART_DAYS for word in ("good", "bad", "none")}
    # By when it was created: a run belongs to the day of its occurrence.
    for run in views.runs(tx, agent.agent, limit=10_000, since=since):
        if run.status == "finished" and day(run.created_at) in days:
            verdicts[run.verdict][days.index(day(run.created_at))] += 1
    recent = views.runs(tx, agent.agent, limit=RUNS_SHOWN)
    page = _render(
        "agent.md.j2",
        agent=agent,
        runs=recent,
        rollouts=views.rollouts(tx, agent.agent, limit=ROLLOUTS_SHOWN),
        paths={run.run: _below(folder, _run_page(run)) for run in recent},
        by_role=views.costs(tx, ("role", "model"), since, agent.agent),
        days=CHART_DAYS,
    )
    return {
        f"{folder}/README.md": page,
        f"{folder}/cost.svg": charts.cost_chart(days, cost["live"], cost["eval"]),
        f"{folder}/runs.svg": charts.runs_chart(days, verdicts),
    }


def run_files(tx: Transaction, row: Row) -> dict[str, bytes]:
    """`agents/<name>/runs/YYYY/MM/<run>.md` and `.json` of a finished live run."""
    path = documents.run_path(row)
    detail = views.run(tx, row["run"])
    steps = list(detail.trace.walk())
    page = _render(
        "run.md.j2",
        run=detail.run,
        outcome=detail.outcome,
        steps=steps,
        depth={step.path: str(step.path).count(".") for step in steps},
        calls=detail.calls,
        roles=_by_role(detail),
        input=json.loads(row["spec"]).get("input", ""),
        origin=json.loads(row["spec"]).get("workspace", {}).get("origin", ""),
    )
    return {f"{path}.md": page, f"{path}.json": documents.of_run(tx, row)}


def rollout_files(tx: Transaction, row: Row) -> dict[str, bytes]:
    """`rollouts/<id>.md` and `.json`."""
    path = f"rollouts/{row['rollout']}"
    detail = views.rollout(tx, row["rollout"])
    arms = sorted({case.arm for case in detail.cases}, key=_arm_rank)
    compared = [arm for arm in arms if not arm.startswith("sentinel:")]
    table = [
        (case, {each.arm: each for each in group})
        for case, group in groupby(detail.cases, key=lambda each: each.case)
    ]
    table.sort(key=lambda line: (not _differs(line[1]), line[0]))
    page = _render(
        "rollout.md.j2",
        detail=detail,
        rollout=detail.rollout,
        arms=compared,
        cases=[line for line in table if any(arm in line[1] for arm in compared)],
        differs={case: _differs(cells) for case, cells in table},
        paths={run.run: f"../{_run_page(run)}" for run in detail.runs},
    )
    return {f"{path}.md": page, f"{path}.json": documents.of_rollout(tx, row)}


@dataclass
class _Bill:
    """A role's part of a run."""

    model: str = ""
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0


def _by_role(detail: views.RunDetail) -> list[tuple[str, _Bill]]:
    bills: dict[tuple[str, str], _Bill] = {}
    for call in detail.calls:
        bill = bills.setdefault((call.role, call.target), _Bill(model=call.target))
        bill.calls += 1
        bill.input_tokens += call.input_tokens
        bill.output_tokens += call.output_tokens
        bill.cost_nano += call.cost_nano if call.state != "released" else 0
    return [(role, bills[role, model]) for role, model in sorted(bills)]


def _differs(cells: Mapping[str, views.CaseView]) -> bool:
    """Candidate and stable (or, alone, the candidate and perfection) are not alike."""
    new, old = cells.get("candidate"), cells.get("stable")
    if new is None:
        return False
    if old is None:
        return new.failed + new.errors > 0
    return (new.passed, new.failed) != (old.passed, old.failed) or new.errors + old.errors > 0


def _arm_rank(arm: str) -> tuple[int, str]:
    order = ("candidate", "stable", "anchor")
    return (order.index(arm) if arm in order else len(order), arm)


def _run_page(run: views.RunView) -> str:
    if run.finished_at is None:
        return ""
    return (
        documents.run_path({"finished_at": run.finished_at, "agent": run.agent, "run": run.run})
        + ".md"
    )


def _below(folder: str, path: str) -> str:
    return path.removeprefix(f"{folder}/")


def _render(template: str, **values: Any) -> bytes:
    text = _environment().get_template(template).render(**values)
    # Templates are written to be read; what they leave of blank lines is not.
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        bare = line.rstrip() if not fence else line
        if bare or fence or (lines and lines[-1]):
            lines.append(bare)
        if fence:
            fence = "" if line == fence else fence
        elif line.startswith("```"):
            fence = line[: len(line) - len(line.lstrip("`"))]
    return ("\n".join(lines).strip("\n") + "\n").encode("utf-8", "backslashreplace")


@cache
def _environment() -> jinja2.Environment:
    import jinja2  # only who writes reports pays for it

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("reconciler.record", "templates"),
        finalize=markdown.finish,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML: `finalize` escapes whatever is not Safe
    )
    made.filters |= {
        "usd": markdown.usd,
        "when": markdown.when,
        "took": markdown.took,
        "number": markdown.number,
        "code": markdown.code,
        "block": markdown.block,
        "text": markdown.inline,
        "link": markdown.link,
        "plain": markdown.plain,
        "state": lambda word: (
            markdown.Safe(STATES[word]) if word in STATES else markdown.inline(word)
        ),
        "verdict": lambda word: markdown.Safe(VERDICTS.get(word, "–")),
        "mark": lambda word: markdown.Safe(MARKS.get(word, "")),
    }
    made.globals["plural"] = markdown.plural
    return made
