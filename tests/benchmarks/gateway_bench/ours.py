"""Our gateway with everything on: tokens, durable reservations, limits, a guardrail, the ledger.

Eight runs of four agents call at once. What happened is checked in the ledger afterwards.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from gateway import access, calls
from gateway.clock import SystemClock
from gateway.database import Database
from gateway.policy import (
    AgentPolicy,
    BudgetRule,
    Grants,
    Limits,
    Model,
    Policy,
    Price,
    Provider,
    SecretRef,
    Window,
)
from gateway.policy.rules import Guardrail, Hook, Match, RateLimit, SecretsCheck
from gateway.values import (
    AgentName,
    Millis,
    NanoUSD,
    Occurrence,
    Principal,
    Purpose,
    ReleaseDigest,
    RunId,
    TeamName,
)
from tests.benchmarks.gateway_bench.contenders import (
    GATEWAY_CORE,
    MESSAGES,
    Absent,
    Contender,
    answers,
    pinned,
    running,
    shown,
)
from tests.benchmarks.gateway_bench.upstream import INPUT_TOKENS, OUTPUT_TOKENS

RUNS, AGENTS = 8, 4
PRICE = Price(input=NanoUSD(10), output=NanoUSD(100))
COST = INPUT_TOKENS * PRICE.input + OUTPUT_TOKENS * PRICE.output
"""Nano-dollars of every call."""
PLENTY = NanoUSD(10**15)
"""Nano-dollars that no benchmark spends: every rule is asked, none refuses."""
MONTH = BudgetRule(name="fleet-month", limit=PLENTY, window=Window.MONTH)
GRANTS = Grants(models=("bench-1",), limits=Limits(max_cost=PLENTY, max_tokens=10**12))
# In two pieces, so that no scanner takes this file for a leak.
SECRET = "AKIA" + "Z7QX3LMP2RT5VW4K and ghp_" + "k3Jd9Qw7Zx5Cv1Bn8Mm2La6Sp4Ot0Ri3Ue7Y"


def policy(upstream_port: int, per_minute: int = 10**9) -> Policy:
    """One priced model, a fleet's month budget, one rate limit, one guardrail."""
    provider = Provider(
        kind="openai",
        base_url=f"http://127.0.0.1:{upstream_port}/v1",
        key=SecretRef(env="BENCH_KEY"),
        hosts=("127.0.0.1",),
    )
    return Policy(
        providers={"bench": provider},
        models={"bench-1": Model(provider="bench", id="bench-1", price=PRICE)},
        budgets=(MONTH,),
        rate_limits=(
            RateLimit(
                name="each-agent",
                requests=per_minute,
                window_ms=Millis(60_000),
                match=Match(agent="*"),
                each_agent=True,
            ),
        ),
        guardrails=(Guardrail(name="no-secrets", hooks=(Hook.MODEL_INPUT,), check=SecretsCheck()),),
    )


@dataclass(frozen=True, slots=True)
class Ours:
    """Our gateway's state from the outside, as the reconciler has it."""

    database: Database
    upstream_port: int

    def publish(self, new: Policy) -> None:
        ceiling = AgentPolicy(team="bench", roles={"main": GRANTS})
        with self.database.transaction() as tx:
            access.put_ceilings(tx, {AgentName(f"agent-{n}"): ceiling for n in range(AGENTS)})
            access.publish(tx, new, now=SystemClock().now())

    def issue(self, run: int) -> str:
        """A token for a run."""
        token = f"token-of-bench-run-{run:016d}"
        who = Principal(
            run=RunId(f"run-{run:016x}"),
            agent=AgentName(f"agent-{run % AGENTS}"),
            team=TeamName("bench"),
            role="main",
            release=ReleaseDigest("rel-000000000001"),
            purpose=Purpose.LIVE,
            occurrence=Occurrence(f"manual:{run}"),
        )
        with self.database.transaction() as tx:
            access.issue(
                tx,
                who,
                GRANTS,
                None,
                token=token,
                now=SystemClock().now(),
                expires_at=Millis(4_000_000_000_000),
            )
        return token

    def check(self, settled: int) -> None:
        """The ledger has one settled row per answer, and every budget is the sum of its rows."""
        states = {
            row["state"]: row["n"]
            for row in self.database.read("SELECT state, count(*) AS n FROM calls GROUP BY state")
        }
        states.pop("released", None)  # what `enforced` had refused; it costs nothing
        assert states == {"settled": settled}, f"{settled} answers, but the ledger has {states}"
        spent = self.database.one("SELECT sum(cost_nano) AS n FROM calls")
        assert spent is not None
        assert spent["n"] == settled * COST
        kept = self.database.read(
            "SELECT substr(rule, 1, length(:month)) = :month AS month, sum(spent_nano) AS spent,"
            " sum(held_nano) AS held FROM budget_windows GROUP BY 1 ORDER BY 1",
            month=f"{MONTH.name}#",
        )
        for row in kept:
            assert (row["spent"], row["held"]) == (spent["n"], 0), kept
        assert [row["month"] for row in kept] == [1], (
            "of the month; runs are counted when asked for"
        )


@contextlib.contextmanager
def ours(
    folder: Path, upstream_port: int, program: Sequence[str] = ("-m", "gateway")
) -> Iterator[tuple[Contender, Ours]]:
    """The gateway as control starts it, on its core; `program` is what Python is told to run."""
    state = folder / "state"
    database = Database(state / "interlock.sqlite")
    database.migrate(calls.MIGRATIONS)
    me = Ours(database, upstream_port)
    me.publish(policy(upstream_port))
    tokens = [me.issue(run) for run in range(RUNS)]
    command = pinned(GATEWAY_CORE, sys.executable, *program, "--state", str(state))
    log = folder / "gateway.out"
    try:
        with running(command, log, {"BENCH_KEY": "sk-upstream"}) as process:
            deadline = time.monotonic() + 30
            while not (state / "gateway.json").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(log.read_text())
                time.sleep(0.05)
            contender = Contender(
                "ours",
                json.loads((state / "gateway.json").read_text())["port"],
                version("interlock"),
                shown(command),
                heads=tuple({"authorization": f"Bearer {token}"} for token in tokens),
                pid=process.pid,
            )
            try:
                yield answers(contender, process, log), me
            except Absent as error:
                raise AssertionError(str(error)) from error
    finally:
        database.close()


def enforced(contender: Contender, me: Ours) -> tuple[dict[str, bool], int]:
    """Which of what is switched on truly refuses a call, and how many calls of this were settled.

    Asked last: the policy is replaced by one whose rate limit the second call breaks.
    """
    secret = contender.post([*MESSAGES, {"role": "user", "content": SECRET}])
    me.publish(policy(me.upstream_port, per_minute=1))
    statuses = [contender.post(MESSAGES) for _ in range(3)]
    found = {"guardrail": secret != 200, "rate limit": statuses[-1] != 200}
    return found, (secret == 200) + statuses.count(200)
