"""Invariant 3 as a state machine: reserve, settle, release, lose, crash, change the rules, pass
midnight, in any order. No accepted reservation is over a limit then in force, and the running
totals equal the ledger at every moment."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway import budgets, calls, schema
from gateway.budgets import Admission, Rules
from gateway.calls import Ask, Ledger, Next, Settlement
from gateway.database import Database, Row
from gateway.policy import BudgetRule, Limits, Window
from gateway.values import CallKey, Label, Millis, NanoUSD, RunId, StepPath
from tests.gateway.stage import principal

HOUR = 3_600_000


class Money(RuleBasedStateMachine):
    """One ledger, two runs of two agents, a few rules whose limits and patterns change."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.database = Database(self.directory / "ledger.sqlite")
        self.database.migrate(schema.MIGRATIONS)
        self.ledger = Ledger()
        self.now = Millis(1_763_000_000_000)
        self.count = 0
        self.open: list[Row] = []
        self.limits = Limits(max_cost=NanoUSD(5000), max_tokens=3000)
        self.rules: tuple[BudgetRule, ...] = (
            BudgetRule(name="day", limit=NanoUSD(4000), window=Window.DAY),
            BudgetRule(name="each", limit=NanoUSD(2500), window=Window.WEEK, each_agent=True),
            BudgetRule(name="quota", tokens=2000, requests=12, window=Window.DAY),
            BudgetRule(name="look", limit=NanoUSD(10), window=Window.MONTH, mode="audit"),
        )

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            shutil.rmtree(self.directory)

    @property
    def compiled(self) -> Rules:
        return Rules(self.rules)

    @rule(
        run=st.sampled_from(["run-1", "run-2"]),
        tokens=st.integers(0, 200),
        wanted=st.integers(1, 400),
        price=st.integers(0, 10),
    )
    def reserve(self, run: str, tokens: int, wanted: int, price: int) -> None:
        self.count += 1
        key = CallKey(RunId(run), StepPath(str(self.count)))
        ask = Ask(key, principal(run, agent=f"agent-{run}"), "model", "fast", "h", "p", True)

        def cost(i: int, o: int) -> int:
            return (i + o) * price

        with self.database.transaction() as tx:
            rules = self.compiled
            stands = calls.standing(tx, self.ledger, ask, live=(), rules=rules, now=self.now)
            assert isinstance(stands, Next)
            over = rules.ceilings(self.limits, calls.charge_of(ask, "fast", self.now))
            totals = {c.meter: self.ledger.total(tx, c.meter, rules=rules) for c in over}
            admission = budgets.admit(
                over, totals, cost=cost, input_tokens=tokens, wanted_output=wanted
            )
            if not isinstance(admission, Admission):
                return
            row = self.ledger.reserve(
                tx,
                ask,
                attempt=stands.attempt,
                effect_key=stands.effect_key,
                target="fast",
                admission=admission,
                price_table="t",
                label=Label(),
                rules=rules,
                now=self.now,
            )
            self.open.append(row)
            self.ledger.finish(tx)
            # From the ledger alone, not from what the gateway keeps.
            truth = budgets.recount(self.rules, tx.read("SELECT * FROM calls"))
            for ceiling in over:
                if not ceiling.enforce or ceiling.meter not in truth:
                    continue
                total = truth[ceiling.meter]
                if ceiling.limit_nano is not None and admission.reserved_nano:
                    assert total.held_nano + total.spent_nano <= ceiling.limit_nano
                if ceiling.limit_tokens is not None:
                    assert total.held_tokens + total.spent_tokens <= ceiling.limit_tokens
                if ceiling.limit_requests is not None:
                    assert total.held_requests + total.spent_requests <= ceiling.limit_requests

    @precondition(lambda self: getattr(self, "open", None))
    @rule(data=st.data(), share=st.integers(0, 100))
    def settle(self, data: Any, share: int) -> None:
        row = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        used = row["reserved_tokens"] * share // 100
        settlement = Settlement(NanoUSD(row["reserved_nano"] * share // 100), used, 0)
        with self.database.transaction() as tx:
            rules = self.compiled
            over = rules.ceilings(self.limits, budgets.charge_of(row))
            assert self.ledger.settle(
                tx,
                row,
                settlement,
                response="{}",
                label=Label(),
                over=over,
                rules=rules,
                now=self.now,
            )
            self.ledger.finish(tx)

    @precondition(lambda self: getattr(self, "open", None))
    @rule(data=st.data(), lost=st.booleans())
    def end_without_answer(self, data: Any, lost: bool) -> None:
        row = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        end = self.ledger.lose if lost else self.ledger.release
        with self.database.transaction() as tx:
            assert end(tx, row, error="x", rules=self.compiled, now=self.now)
            # A second end of the same attempt changes nothing.
            assert not end(tx, row, error="x", rules=self.compiled, now=self.now)
            self.ledger.finish(tx)

    @rule()
    def crash_and_start_again(self) -> None:
        with self.database.transaction() as tx:
            # A new process knows nothing but what is on disk.
            self.ledger = Ledger()
            assert self.ledger.recover(tx, rules=self.compiled, now=self.now) == len(self.open)
            self.ledger.finish(tx)
        self.open = []

    @rule(index=st.integers(0, 3), limit=st.integers(0, 6000))
    def change_a_limit(self, index: int, limit: int) -> None:
        changed = list(self.rules)
        if index < len(changed):
            changed[index] = changed[index].model_copy(update={"limit": NanoUSD(limit)})
        self.rules = tuple(changed)

    @rule(pattern=st.sampled_from(["*", "agent-run-1", "nobody"]))
    def change_what_a_rule_matches(self, pattern: str) -> None:
        first = self.rules[0].model_copy(update={"agent": pattern})
        self.rules = (first, *self.rules[1:])

    @rule()
    def drop_or_restore_a_rule(self) -> None:
        if len(self.rules) == 4:
            self.rules = self.rules[:3]
        else:
            self.rules = (
                *self.rules,
                BudgetRule(name="extra", limit=NanoUSD(3000), window=Window.RUN),
            )

    @rule(hours=st.integers(1, 30))
    def time_passes(self, hours: int) -> None:
        self.now = Millis(self.now + hours * HOUR)

    @rule()
    def a_commit_fails(self) -> None:
        """Memory is forgotten; what is open on disk stays open there."""
        self.ledger.forget()

    @invariant()
    def totals_equal_the_ledger(self) -> None:
        if hasattr(self, "database"):
            with self.database.transaction() as tx:
                assert self.ledger.windows.audit(tx, self.compiled) == {}
                assert calls.audit(tx, self.rules) == {}


TestMoney = Money.TestCase
TestMoney.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
