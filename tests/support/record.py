"""A small fleet with a past, written straight into the tables: what the record is made of.

Two loops: `ci-triage` (a rejected, a rolled back and a promoted release, live runs, effects) and
`docs-keeper` (ungated, broken today). Every text of an agent tries to leave its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gateway.calls
import gateway.schema
import reconciler.schema
import runner.queue
from gateway.database import Database, Transaction
from gateway.policy import Grants, Limits
from gateway.values import (
    AgentName,
    Millis,
    NanoUSD,
    Occurrence,
    Purpose,
    ReleaseDigest,
    TeamName,
    canonical_json,
    derived_id,
)
from reconciler.record import audit
from reconciler.rollout import store
from reconciler.rollout.model import Hold, Rollout, RolloutPolicy, State, Verdict
from runner import queue
from runner.spec import Grade, Role, RunOutcome, RunSpec, SandboxSpec, StopReason, Workspace

DAY = 86_400_000
NOW = Millis(1_795_240_800_000)  # 2026-11-21T06:00:00Z
OLD, GOOD, BAD = (ReleaseDigest(f"rel-{c * 12}") for c in "abc")
KEY = "sk-ant-api03-" + "x" * 30
EVIL = "<script>alert(1)</script> | **x** `y` [a](https://evil.example) @all ![](http://e.example)"


@dataclass
class FakeClock:
    """A clock that stands until it is moved."""

    at: int = NOW

    def now(self) -> Millis:
        return Millis(self.at)


def new_database(path: Path) -> Database:
    database = Database(path)
    database.migrate(
        (*gateway.schema.MIGRATIONS, *runner.queue.MIGRATIONS, *reconciler.schema.MIGRATIONS)
    )
    return database


@contextmanager
def writing(database: Database) -> Iterator[Transaction]:
    with database.transaction() as tx:
        yield tx


def spec(agent: str, occurrence: str, release: str, purpose: Purpose = Purpose.LIVE) -> RunSpec:
    return RunSpec(
        agent=AgentName(agent),
        team=TeamName("platform"),
        release=ReleaseDigest(release),
        purpose=purpose,
        occurrence=Occurrence(occurrence),
        input=f"Job 1123 failed. key {KEY}\n```\n</details>{EVIL}",
        roles={
            "main": Role(name="main", model="smart", instructions="Long text.", grants=Grants())
        },
        limits=Limits(max_cost=NanoUSD(3_000_000_000)),
        sandbox=SandboxSpec(image="sha256:0"),
        workspace=Workspace(path="/host/path", origin="git https://example.org/x commit 12"),
    )


def add_run(
    tx: Transaction,
    agent: str,
    occurrence: str,
    release: str,
    *,
    at: int,
    outcome: RunOutcome | None,
    purpose: Purpose = Purpose.LIVE,
    assignment: queue.Assignment | None = None,
) -> str:
    run, _ = queue.enqueue(
        tx,
        spec(agent, occurrence, release, purpose),
        now=Millis(at),
        assignment=assignment or queue.Assignment(),
    )
    if outcome is not None:
        finish(tx, run, at=at, outcome=outcome)
    return run


def finish(tx: Transaction, run: str, *, at: int, outcome: RunOutcome) -> None:
    tx.execute(
        "UPDATE runs SET status = 'finished', fence = 1, stop = :stop, outcome = :outcome,"
        " started_at = :at, finished_at = :end WHERE run = :run",
        stop=outcome.stop,
        outcome=outcome.model_dump_json(),
        at=at,
        end=at + 65_000,
        run=run,
    )


def add_step(
    tx: Transaction, run: str, step: str, kind: str, name: str, *, at: int, **body: Any
) -> None:
    """An intent and its outcome; `intent` and `outcome` are their bodies."""
    for event, status in (("intent", "started"), ("outcome", body.get("status", "ok"))):
        tx.execute(
            "INSERT INTO journal (run, step, call, event, role, kind, name, status, body, label,"
            " effect_key, tokens, cost_nano, fence, at) VALUES (:run, :step, 0, :event,"
            " :role, :kind, :name, :status, :body, 'untrusted/internal', NULL, :tokens, :cost, 1,"
            " :at)",
            run=run,
            step=step,
            event=event,
            role=body.get("role", "main"),
            kind=kind,
            name=name,
            status=status,
            body=json.dumps(body.get(event, {}), ensure_ascii=False, sort_keys=True),
            tokens=body.get("tokens", 0) if event == "outcome" else 0,
            cost=body.get("cost", 0) if event == "outcome" else 0,
            at=at + (820 if event == "outcome" else 0),
        )


def add_call(
    tx: Transaction,
    run: str,
    step: str,
    *,
    at: int,
    state: str = "settled",
    cost: int = 7_000_000,
    kind: str = "model",
    target: str = "anthropic/smart",
    asked: str | None = None,
    role: str = "main",
    effect: str | None = None,
    attempt: int = 0,
) -> None:
    about = tx.one("SELECT * FROM runs WHERE run = :run", run=run)
    assert about is not None
    open_ = state == "reserved"
    tx.execute(
        "INSERT INTO calls (run, step, call, attempt, kind, state, agent, team, role, release,"
        " purpose, occurrence, target, asked, effect_key, request_hash, reserved_nano, cost_nano,"
        " reserved_tokens, input_tokens, output_tokens, cached_tokens, reasoning_tokens,"
        " price_table, label, policy, error, response, reserved_at, settled_at) VALUES (:run,"
        " :step, 0, :attempt, :kind, :state, :agent, :team, :role, :release, :purpose,"
        " :occurrence, :target, :asked, :effect, 'h', :reserved, :cost, 5000, :input, :output,"
        " 0, 0, 'p1', 'untrusted/internal', 'pol', :error, :response, :at, :settled)",
        run=run,
        step=step,
        attempt=attempt,
        kind=kind,
        state=state,
        agent=about["agent"],
        team=about["team"],
        role=role,
        release=about["release"],
        purpose=about["purpose"],
        occurrence=about["occurrence"],
        target=target,
        asked=asked or target,
        effect=effect,
        reserved=max(cost, 20_000_000),
        cost=None if open_ else 0 if state == "released" else cost,
        input=1200 if state == "settled" else None,
        output=300 if state == "settled" else None,
        error="HTTP 503" if state in ("released", "unknown") else None,
        response=json.dumps({"raw": f"Bearer {KEY}"}) if state == "settled" else None,
        at=at,
        settled=None if open_ else at + 700,
    )


def good(**change: Any) -> RunOutcome:
    values: dict[str, Any] = {
        "stop": StopReason.UNTIL_MET,
        "summary": f"Fixed the rounding. {EVIL}\n````\nend",
        "accepted": True,
        "grades": (Grade(check="tests", status="passed"),),
        "changed": ("billing/invoices.py",),
        "diff": "--- a/billing/invoices.py\n+++ b/billing/invoices.py\n@@ -1 +1 @@\n-x\n+```\n",
        "notes": "remember the flaky test",
        "steps": 3,
        "tokens": 3000,
        "cost_nano": NanoUSD(14_000_000),
        "working_ms": 61_000,
    }
    return RunOutcome(**(values | change))


def failed() -> RunOutcome:
    return good(
        stop=StopReason.STALLED,
        detail="the same command failed 3 times",
        accepted=False,
        summary="",
        diff="",
        changed=(),
        grades=(Grade(check="tests", status="failed"),),
    )


def add_rollout(
    tx: Transaction,
    candidate: str,
    stable: str | None,
    state: State,
    reason: str,
    *,
    at: int,
    agent: str = "ci-triage",
    verdict: Verdict | None = Verdict.PASS,
    gated: bool = True,
) -> str:
    name = derived_id("rollout", agent, candidate, stable or "")
    policy = RolloutPolicy(name="standard") if gated else RolloutPolicy(name="merge", gate=None)
    store.save(
        tx,
        Rollout(
            id=name,
            agent=AgentName(agent),
            candidate=ReleaseDigest(candidate),
            stable=ReleaseDigest(stable) if stable else None,
            anchor=ReleaseDigest(stable) if stable else None,
            policy=policy,
            suite="s" * 12,
            commit="1234567890abcdef" * 2,
            state=state,
            look=3,
            reason=reason,
            opened_at=Millis(at),
            since=Millis(at + 900_000),
            verdict=verdict,
        ),
    )
    store.remember_release(tx, candidate, '{"r":1}', commit="12", now=Millis(at))
    audit.append(
        tx,
        now=Millis(at),
        actor="interlock",
        action="rollout.open",
        agent=agent,
        subject=name,
        reason=f"{stable or 'nothing'} → {candidate}",
    )
    audit.append(
        tx,
        now=Millis(at + 900_000),
        actor="interlock",
        action=f"rollout.{state}",
        agent=agent,
        subject=name,
        reason=reason,
    )
    return name


def add_gate(tx: Transaction, rollout: str, *, at: int, failing: tuple[str, ...] = ()) -> None:
    """Attempts of both arms at a look of three, their eval runs and calls, and the receipt."""
    row = tx.one("SELECT * FROM rollouts WHERE rollout = :r", r=rollout)
    assert row is not None
    for case in (f"case-{i:02d}" for i in range(8)):
        for arm in ("candidate", "stable"):
            for number in range(3):
                bad = arm == "candidate" and case in failing and number != 1
                run = add_run(
                    tx,
                    row["agent"],
                    f"eval:{rollout}:{arm}:{case}:{number}",
                    row[arm] or OLD,
                    at=at,
                    outcome=failed() if bad else good(),
                    purpose=Purpose.EVAL,
                    assignment=queue.Assignment(rollout, arm, case, number),
                )
                add_call(tx, run, "0", at=at, cost=1_500_000)
                tx.execute(
                    "INSERT INTO attempts (rollout, arm, case_id, attempt, run, status, detail,"
                    " stop, cost_nano, working_ms) VALUES (:r, :arm, :case, :n, :run, :status,"
                    " :detail, 'done', 1500000, 900)",
                    r=rollout,
                    arm=arm,
                    case=case,
                    n=number,
                    run=run,
                    status="failed" if bad else "passed",
                    detail=f"tests: exit 1 {EVIL}" if bad else "",
                )
    verdict = "fail" if failing else "pass"
    flipped = ", ".join(f"{case} (3/3 → 1/3)" for case in failing)
    points = "-17 points against stable, surely at least 5 worse" if failing else "+0 points"
    evidence = {
        "decision": verdict,
        "summary": points,
        "checks": [
            {
                "name": "sentinel:gives-up",
                "verdict": "pass",
                "text": "sentinel gives-up rejected (0 of 8)",
                "figures": {"passes": 0, "attempts": 8},
            },
            {
                "name": "not_worse_than_stable",
                "verdict": verdict,
                "text": points + (f"; now failing: {flipped}" if flipped else ", at worst -4"),
                "figures": {"difference": "-0.1700"},
            },
            {
                "name": "cost",
                "verdict": "pass",
                "text": "cost ×1.02 (at most ×1.09; allowed ×1.25)",
                "figures": {"ratio": "1.0200"},
            },
        ],
    }
    document = canonical_json(
        {"format": "interlock.receipt/1", "state": row["state"], "evidence": evidence}
    )
    tx.execute(
        "INSERT INTO receipts (receipt, rollout, kind, document, at) VALUES (:id, :r, 'offline',"
        " :document, :at)",
        id=derived_id("receipt", rollout),
        r=rollout,
        document=document.decode(),
        at=at,
    )


def live_run(
    tx: Transaction,
    day: int,
    release: str,
    outcome: RunOutcome,
    rollout: str | None = None,
    agent: str = "ci-triage",
) -> str:
    """A finished live run with its journal and calls, `day` days ago."""
    at = NOW - day * DAY - 3_600_000
    run = add_run(
        tx,
        agent,
        f"schedule:{day}",
        release,
        at=at,
        outcome=outcome,
        assignment=queue.Assignment(rollout, "candidate" if rollout else None),
    )
    message = {"content": f"I look. {EVIL}", "tool_calls": [{"function": {"name": "shell"}}]}
    add_step(tx, run, "0", "sandbox", "open", at=at, outcome={"result": "ready"})
    add_step(
        tx,
        run,
        "1",
        "model",
        "smart",
        at=at + 1000,
        tokens=1500,
        cost=7_000_000,
        intent={"model": "smart", "messages": 2},
        outcome={"message": message},
    )
    add_call(tx, run, "1", at=at + 1000)
    add_step(
        tx,
        run,
        "2",
        "exec",
        "shell",
        at=at + 2000,
        status="error",
        intent={"arguments": {"command": "pytest -q | tail -3"}},
        outcome={"result": f"1 failed\n```\n{EVIL}", "exit": 1},
    )
    add_step(
        tx,
        run,
        "3",
        "delegate",
        "reviewer",
        at=at + 3000,
        intent={"task": "judge it"},
        outcome={"result": "accept", "stop": "done", "detail": "", "fatal": False},
    )
    add_step(
        tx,
        run,
        "3.0",
        "model",
        "other",
        at=at + 3100,
        role="reviewer",
        tokens=1500,
        cost=7_000_000,
        outcome={"message": {"content": "accept"}, "ratio": 1.5},
    )
    add_call(tx, run, "3.0", at=at + 3100, role="reviewer", target="openai/other")
    return run


def sample(database: Database) -> dict[str, str]:
    """The fleet described above; returns names of some of its things."""
    names: dict[str, str] = {}
    with database.transaction() as tx:
        first = add_rollout(tx, OLD, None, State.PROMOTED, "approved by anna", at=NOW - 9 * DAY)
        rejected = add_rollout(
            tx,
            BAD,
            OLD,
            State.REJECTED,
            "-17 points against stable, surely at least 5 worse",
            at=NOW - 6 * DAY,
            verdict=Verdict.FAIL,
        )
        add_gate(tx, rejected, at=NOW - 6 * DAY, failing=("case-03", "case-05"))
        harm = add_rollout(
            tx, GOOD, OLD, State.ROLLED_BACK, "4 of 5 canary runs failed", at=NOW - 2 * DAY
        )
        add_gate(tx, harm, at=NOW - 2 * DAY)
        store.quarantine(
            tx,
            GOOD,
            agent="ci-triage",
            rollout=harm,
            reason="4 of 5 canary runs failed",
            actor="interlock",
            now=NOW,
        )
        tx.execute(
            "INSERT INTO pointers (agent, stable, previous, anchor, generation, since) VALUES"
            " ('ci-triage', :old, NULL, :old, 3, :at)",
            old=OLD,
            at=NOW - 9 * DAY,
        )
        for day in (12, 8, 7, 5, 4, 3):
            names["run"] = live_run(tx, day, OLD, good())
        names["canary"] = live_run(tx, 1, GOOD, failed(), harm)
        add_call(
            tx,
            names["canary"],
            "2",
            at=NOW - DAY,
            kind="tool",
            target="github.create_pr",
            cost=0,
            effect="eff-1",
        )
        tx.execute("UPDATE runs SET agent = agent")
        store.place_hold(
            tx,
            Hold("hold-1", "ci-triage", "promotion", f"{GOOD} was rolled back", "interlock", NOW),
        )
        document = {
            "gated": True,
            "cases": 24,
            "model": "smart",
            "tools": ["ci.read_log"],
            "schedule": "0 6 * * 1-5",
            "timezone": "Europe/Berlin",
            "owns": ["notes/**"],
        }
        findings = [
            {
                "file": "agents/docs-keeper/agent.yaml",
                "line": 7,
                "column": 3,
                "message": 'model "smrt" is not defined',
                "fix": 'did you mean "smart"?',
            }
        ]
        for agent, digest, told, found in (
            ("ci-triage", OLD, document, []),
            ("docs-keeper", None, {"gated": False, "model": "smart"}, findings),
        ):
            tx.execute(
                "INSERT INTO desired (agent, digest, team, commit_id, document, findings) VALUES"
                " (:agent, :digest, 'platform', '12', :told, :found)",
                agent=agent,
                digest=digest,
                told=json.dumps(told),
                found=json.dumps(found),
            )
        tx.execute("INSERT INTO facts (name, value) VALUES ('config_commit', '1234567890abcdef')")
        tx.execute("INSERT INTO schedules (agent, looked_until) VALUES ('ci-triage', :n)", n=NOW)
        gateway.calls.alert(
            tx,
            kind="budget",
            agent="ci-triage",
            identity=("b",),
            now=NOW,
            text="budget `team` has reached 80 % of its limit",
        )
        names |= {"first": first, "rejected": rejected, "harm": harm}
    return names
