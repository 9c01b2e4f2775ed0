"""The fleet at a glance: every loop with its owner, what is live, what it costs and returns."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.database import Row, Transaction
from gateway.values import Millis, NanoUSD
from reconciler.findings import printable
from reconciler.gates.live import judge_run
from reconciler.record.calendar import days_back
from reconciler.record.views import money
from reconciler.record.views.rollouts import RolloutView, view_of
from reconciler.record.views.runs import RunView, views_of
from reconciler.record.views.waiting import WaitingView, waiting
from reconciler.triggers import next_due
from runner.spec import RunOutcome

WEEK = 7
"""Days of the window, today included."""


@dataclass(frozen=True, slots=True)
class HoldView:
    """Somebody said: not now. `agent` `*` is the whole fleet."""

    hold: str
    agent: str
    kind: str
    reason: str
    actor: str
    at: Millis
    expires_at: Millis | None


@dataclass(frozen=True, slots=True)
class StopView:
    """Calls are refused. `agent` `*` is the whole fleet."""

    agent: str
    reason: str
    actor: str
    at: Millis
    expires_at: Millis | None


@dataclass(frozen=True, slots=True)
class AlertView:
    """Something a person should look at."""

    id: str
    at: Millis
    kind: str
    agent: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A release that no route assigns, and why."""

    digest: str
    reason: str
    actor: str
    at: Millis


@dataclass(frozen=True, slots=True)
class AgentView:
    """One loop. Week figures are of the last seven calendar days, UTC.

    `gated` None: unknown (nothing declares it and no rollout of it is known).
    """

    agent: str
    team: str
    desired: str | None
    broken: bool
    findings: tuple[str, ...]
    stable: str | None
    previous: str | None
    anchor: str | None
    candidate: str | None
    since: Millis | None
    rollout: RolloutView | None
    """The open one, else None."""
    gated: bool | None
    cases: int
    model: str
    tools: tuple[str, ...]
    owns: tuple[str, ...]
    schedule: str | None
    timezone: str
    next_due: Millis | None
    holds: tuple[HoldView, ...]
    stops: tuple[StopView, ...]
    quarantine: tuple[Quarantined, ...]
    last_run: RunView | None
    runs_week: int
    verdicts_week: Mapping[str, int]
    evals_week: int
    cost_week: Mapping[str, int]
    """Purpose → nano-dollars."""
    accepted_week: int
    cost_per_accepted_nano: NanoUSD | None

    @property
    def cost_week_nano(self) -> int:
        """All purposes together."""
        return sum(self.cost_week.values())


@dataclass(frozen=True, slots=True)
class FleetView:
    """All loops, and what concerns all of them."""

    commit: str | None
    agents: tuple[AgentView, ...]
    holds: tuple[HoldView, ...]
    stops: tuple[StopView, ...]
    findings: tuple[str, ...]
    alerts: tuple[AlertView, ...]
    runs_week: int
    accepted_week: int
    cost_week: Mapping[str, int] = field(default_factory=dict)
    waiting: tuple[WaitingView, ...] = ()
    """What waits for a person."""

    @property
    def cost_week_nano(self) -> int:
        """All purposes together."""
        return sum(self.cost_week.values())


def fleet(tx: Transaction, now: Millis) -> FleetView:
    """Everything on one page, of the moment of this transaction."""
    facts = {row["name"]: row["value"] for row in tx.read("SELECT name, value FROM facts")}
    seen = _Seen(tx, now)
    agents = tuple(_agent(seen, name) for name in seen.names())
    costs: Counter[str] = Counter()
    for spent in seen.costs.values():
        costs.update(spent)
    return FleetView(
        commit=facts.get("config_commit"),
        agents=agents,
        holds=seen.holds,
        stops=seen.stops,
        findings=_texts(facts.get("findings", "[]")),
        alerts=alerts(tx, limit=10),
        runs_week=sum(a.runs_week for a in agents),
        accepted_week=sum(a.accepted_week for a in agents),
        cost_week=dict(sorted(costs.items())),
        waiting=waiting(tx),
    )


def agent(tx: Transaction, name: str, now: Millis) -> AgentView:
    """One loop. KeyError when nothing is known by this name."""
    seen = _Seen(tx, now)
    if name not in seen.names():
        known = ", ".join(seen.names()) or "none yet"
        raise KeyError(f"no agent {name!r}; agents: {known}")
    return _agent(seen, name)


def alerts(tx: Transaction, limit: int = 50) -> tuple[AlertView, ...]:
    """The newest first."""
    rows = tx.read("SELECT * FROM alerts ORDER BY at DESC, id LIMIT :limit", limit=limit)
    return tuple(
        AlertView(row["id"], row["at"], row["kind"], row["agent"], row["text"]) for row in rows
    )


class _Seen:
    """What all agents' views are made of, read once and not once per agent."""

    def __init__(self, tx: Transaction, now: Millis) -> None:
        self.tx = tx
        self.now = now
        since = days_back(now, WEEK)
        self.desired = {r["agent"]: r for r in tx.read("SELECT * FROM desired")}
        self.pointers = {r["agent"]: r for r in tx.read("SELECT * FROM pointers")}
        self.holds = tuple(
            HoldView(
                r["hold"], r["agent"], r["kind"], r["reason"], r["actor"], r["at"], r["expires_at"]
            )
            for r in tx.read(
                "SELECT * FROM holds WHERE lifted_at IS NULL"
                " AND (expires_at IS NULL OR expires_at > :now) ORDER BY at, hold",
                now=now,
            )
        )
        self.stops = tuple(
            StopView(r["agent"], r["reason"], r["actor"], r["at"], r["expires_at"])
            for r in tx.read(
                "SELECT * FROM stops WHERE expires_at IS NULL OR expires_at > :now ORDER BY agent",
                now=now,
            )
        )
        self.quarantine: dict[str, list[Quarantined]] = defaultdict(list)
        for r in tx.read("SELECT * FROM quarantine ORDER BY at, digest"):
            self.quarantine[r["agent"]].append(
                Quarantined(r["digest"], r["reason"], r["actor"], r["at"])
            )
        self.open = {
            r["agent"]: r
            for r in tx.read(
                "SELECT * FROM rollouts WHERE closed_at IS NULL AND pull IS NULL ORDER BY opened_at"
            )
        }
        self.costs = money.by_purpose(tx, since)
        self.week: dict[str, list[Row]] = defaultdict(list)
        for r in tx.read(
            "SELECT agent, outcome FROM runs WHERE purpose = 'live' AND status = 'finished'"
            " AND finished_at >= :since",
            since=since,
        ):
            self.week[r["agent"]].append(r)
        self.evals = {
            r["agent"]: r["n"]
            for r in tx.read(
                "SELECT agent, count(*) AS n FROM rollouts r JOIN attempts a"
                " ON a.rollout = r.rollout WHERE r.since >= :since GROUP BY agent",
                since=since,
            )
        }

    def names(self) -> list[str]:
        """Declared, live, or of the past: whoever has a pointer or a rollout."""
        known = self.tx.read("SELECT DISTINCT agent FROM rollouts")
        return sorted({*self.desired, *self.pointers, *(r["agent"] for r in known)})


def _agent(seen: _Seen, name: str) -> AgentView:
    tx = seen.tx
    desired, pointer = seen.desired.get(name), seen.pointers.get(name)
    told: dict[str, Any] = json.loads(desired["document"]) if desired else {}
    newest = tx.read(
        "SELECT * FROM runs WHERE agent = :agent AND purpose = 'live'"
        " ORDER BY created_at DESC, run LIMIT 1",
        agent=name,
    )
    last = views_of(tx, newest)[0] if newest else None
    outcomes = [RunOutcome.model_validate_json(row["outcome"]) for row in seen.week[name]]
    verdicts = Counter(judge_run(outcome).word or "none" for outcome in outcomes)
    cost = dict(sorted(seen.costs.get(name, {}).items()))
    good = verdicts["good"]
    opened = seen.open.get(name)
    schedule = told.get("schedule")
    return AgentView(
        agent=name,
        team=(desired["team"] if desired else "") or (last.team if last else ""),
        desired=desired["digest"] if desired else None,
        broken=desired is not None and desired["digest"] is None,
        findings=_texts(desired["findings"]) if desired else (),
        stable=pointer["stable"] if pointer else None,
        previous=pointer["previous"] if pointer else None,
        anchor=pointer["anchor"] if pointer else None,
        candidate=pointer["candidate"] if pointer else None,
        since=pointer["since"] if pointer else None,
        rollout=view_of(opened) if opened else None,
        gated=told["gated"] if "gated" in told else _was_gated(tx, name),
        cases=int(told.get("cases") or 0),
        model=str(told.get("model") or ""),
        tools=tuple(told.get("tools") or ()),
        owns=tuple(told.get("owns") or ()),
        schedule=schedule,
        timezone=str(told.get("timezone") or "UTC"),
        next_due=next_due(schedule, str(told.get("timezone") or "UTC"), now=seen.now)
        if schedule
        else None,
        holds=tuple(h for h in seen.holds if h.agent == name),
        stops=tuple(s for s in seen.stops if s.agent == name),
        quarantine=tuple(seen.quarantine.get(name, ())),
        last_run=last,
        runs_week=len(outcomes),
        verdicts_week=dict(sorted(verdicts.items())),
        evals_week=seen.evals.get(name, 0),
        cost_week=cost,
        accepted_week=good,
        # All it cost, evals included: that is what the accepted outcomes had to pay for.
        cost_per_accepted_nano=NanoUSD(sum(cost.values()) // good) if good else None,
    )


def _was_gated(tx: Transaction, name: str) -> bool | None:
    row = tx.one(
        "SELECT * FROM rollouts WHERE agent = :agent ORDER BY opened_at DESC, rollout LIMIT 1",
        agent=name,
    )
    return view_of(row).gated if row else None


def _texts(findings: str) -> tuple[str, ...]:
    """Findings as people read them: `file:line:column message; fix`."""
    found = []
    for item in json.loads(findings):
        fix = f"; {item['fix']}" if item.get("fix") else ""
        place = f"{item.get('file')}:{item.get('line')}:{item.get('column')}"
        found.append(printable(f"{place} {item.get('message')}{fix}"))
    return tuple(found)
