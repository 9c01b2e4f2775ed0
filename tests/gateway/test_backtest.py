"""A replay of recorded calls: what comes off otherwise, why, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from gateway.backtest import AgentOutcome, Reason, RecordedCall, Side, backtest
from gateway.backtest.guarded import guarded
from gateway.policy import (
    BudgetRule,
    Grants,
    Guardrail,
    Limits,
    Policy,
    Price,
    RateLimit,
    ToolGrant,
    VirtualModel,
)
from gateway.policy import Window as Over
from gateway.policy.rules import Hook, HttpCheck, RegexCheck
from gateway.values import Millis, NanoUSD
from tests.support.recordings import (
    AT,
    CHEAP,
    DEAR,
    GRANTS,
    POLICY,
    asked,
    did,
    model,
    side,
)

NORTH = {"project": "northwind-api"}


def replay(calls: Iterable[RecordedCall], after: Side, before: Side | None = None) -> AgentOutcome:
    found = backtest(calls, before=before or side(), after=after, priced_at=AT).agents
    assert len(found) == 1
    return found[0]


def denied(found: AgentOutcome) -> list[tuple[Reason, str, int]]:
    return [(told.reason, told.about, told.calls) for told in found.denied]


def allowed(found: AgentOutcome) -> list[tuple[Reason, str, int]]:
    return [(told.reason, told.about, told.calls) for told in found.allowed]


def policy(**changes: Any) -> Policy:
    return POLICY.model_copy(update=changes)


def grants(**changes: Any) -> Grants:
    return GRANTS.model_copy(update=changes)


def budget(**fields: Any) -> BudgetRule:
    return BudgetRule(**({"name": "day", "window": Over.DAY} | fields))


def test_the_same_policy_changes_nothing() -> None:
    calls = [asked(n, target=("large", "small")[n % 2]) for n in range(3)]
    found = replay([*calls, did("tracker.open", NORTH, 5)], side())
    assert not found.differs
    assert (found.calls, found.runs) == (4, 1)
    assert found.recorded_nano == found.before_nano == found.after_nano == 11_000_000


def test_a_tool_that_is_granted_no_longer_is_denied_with_the_calls_that_used_it() -> None:
    calls = [did("tracker.list", {}, n) for n in range(7)]
    found = replay(calls, side(grants=grants(tools={"tracker.open": GRANTS.tools["tracker.open"]})))
    assert denied(found) == [(Reason.TOOL, "tracker.list", 7)]
    assert [str(key) for key in found.denied[0].examples] == [f"run-0/{n}/0" for n in range(5)]


def test_a_server_that_is_gone_denies_its_tools() -> None:
    found = replay([did("tracker.list", {})], side(policy(servers={})))
    assert denied(found) == [(Reason.TOOL, "tracker.list", 1)]


def test_a_tighter_argument_denies_the_calls_outside_of_it() -> None:
    narrow = grants(tools={"tracker.open": ToolGrant(args={"project": ("northwind-web",)})})
    calls = [did("tracker.open", {"project": f"northwind-{end}"}) for end in ("web", "api")]
    found = replay(calls, side(grants=narrow))
    assert denied(found) == [(Reason.ARGUMENT, "tracker.open", 1)]


def test_arguments_that_nobody_recorded_are_counted_and_not_judged() -> None:
    narrow = grants(tools={"tracker.open": ToolGrant(args={"project": ("nothing",)})})
    found = replay([did("tracker.open", None)], side(grants=narrow))
    assert (found.denied, found.unseen) == ((), 1)


def test_an_approval_that_is_newly_asked_for_is_told_apart() -> None:
    asks = grants(tools={"tracker.list": ToolGrant(approval=True)})
    assert denied(replay([did("tracker.list", {})], side(grants=asks))) == [
        (Reason.APPROVAL, "tracker.list", 1)
    ]
    assert denied(replay([did("tracker.list", None)], side(policy(destructive=("*.list",))))) == [
        (Reason.APPROVAL, "tracker.list", 1)
    ]


def test_a_call_that_was_approved_and_is_denied_now_is_newly_denied() -> None:
    before = side(grants=grants(tools={"tracker.list": ToolGrant(approval=True)}))
    found = replay([did("tracker.list", {})], side(grants=grants(tools={})), before)
    assert denied(found) == [(Reason.TOOL, "tracker.list", 1)]


def test_a_refused_call_that_may_now_be_made_is_newly_allowed() -> None:
    refused = did("tracker.open", {"project": "southwind"})
    wide = grants(tools={"tracker.open": ToolGrant()})
    found = replay([refused], side(grants=wide))
    assert allowed(found) == [(Reason.ARGUMENT, "tracker.open", 1)]


def test_a_call_that_neither_side_lets_through_is_no_difference() -> None:
    found = replay([did("tracker.drop", {})], side())
    assert (found.differs, found.denied_before) == (False, 1)


def test_a_model_that_a_caller_names_itself_and_lost_is_denied() -> None:
    found = replay(
        [asked(asked="small", target="small")], side(grants=grants(models=("large", "smart")))
    )
    assert denied(found) == [(Reason.MODEL, "small", 1)]
    assert (found.before_nano, found.after_nano) == (1_000_000, 0)


def test_a_role_that_names_another_model_asks_for_that_one() -> None:
    other = side(grants=grants(models=("small",)), asks={"main": "small"})
    found = replay([asked(0), asked(1)], other)
    assert found.denied == ()
    assert found.rerouted == (("large", "small", 2),)
    assert (found.before_nano, found.after_nano) == (2_000 * DEAR, 2_000 * CHEAP)


def test_a_call_of_an_earlier_release_is_replayed_as_one_of_today() -> None:
    found = replay([asked(asked="gone", target="gone", cost_nano=7)], side())
    assert not found.differs
    assert (found.recorded_nano, found.before_nano) == (7, 1_000 * DEAR)


@pytest.mark.parametrize(
    "targets, served, now",
    [
        (("small", "large"), "large", "small"),
        (("small", "large"), "small", "small"),
        (("small",), "large", "small"),
        (("large",), "small", "large"),
        (("third", "large", "small"), "large", "third"),
        (("third", "large", "small"), "small", "third"),
    ],
)
def test_the_first_choice_goes_to_the_first_and_a_fallback_past_what_had_failed(
    targets: tuple[str, ...], served: str, now: str
) -> None:
    changed = policy(
        models={**POLICY.models, "third": model(CHEAP)},
        virtual_models={"smart": VirtualModel(targets=targets)},
    )
    all_of_them = grants(models=("large", "small", "smart", "third"))
    found = replay([asked(target=served)], side(changed, all_of_them))
    assert found.rerouted == (((served, now, 1),) if served != now else ())


def test_among_targets_that_share_the_calls_each_stays_where_it_is() -> None:
    shared = policy(
        virtual_models={"smart": VirtualModel(targets=("small", "large"), routing="weight")}
    )
    assert replay([asked(target="large"), asked(target="small")], side(shared)).rerouted == ()


def test_a_price_that_nobody_knows_denies_under_a_budget_and_is_said_without() -> None:
    unknown = {"smart": VirtualModel(targets=("free",))}
    models = grants(models=("free", "smart"))
    found = replay([asked()], side(policy(virtual_models=unknown), models))
    assert denied(found) == [(Reason.PRICE, "free", 1)]
    unlimited = models.model_copy(update={"limits": Limits()})
    found = replay([asked()], side(policy(virtual_models=unknown, budgets=()), unlimited))
    assert (found.denied, found.unpriced, found.after_nano) == ((), 1, 0)


def test_what_lies_beyond_a_lower_budget_is_denied() -> None:
    lower = policy(budgets=(budget(limit=NanoUSD(2_500_000)),))
    found = replay([asked(n, target="small") for n in range(4)], side(lower))
    assert denied(found) == [(Reason.BUDGET, "day", 2)]
    assert (found.before_nano, found.after_nano) == (4_000_000, 2_000_000)


def test_a_call_whose_answer_would_be_shortened_is_let_through() -> None:
    lower = policy(budgets=(budget(limit=NanoUSD(1_950_000)),))
    assert replay([asked(n, target="small") for n in range(2)], side(lower)).denied == ()


def test_a_budget_begins_anew_with_its_window() -> None:
    lower = policy(budgets=(budget(limit=NanoUSD(1_000_000)),))
    days = [asked(n * 1440, target="small") for n in range(3)]
    assert replay(days, side(lower)).denied == ()
    same_day = [asked(n * 10, target="small") for n in range(3)]
    assert denied(replay(same_day, side(lower))) == [(Reason.BUDGET, "day", 2)]


def test_tokens_requests_and_the_run_itself_have_limits_too() -> None:
    calls = [asked(n, target="small") for n in range(3)]
    few = policy(budgets=(budget(requests=2),))
    assert denied(replay(calls, side(few))) == [(Reason.BUDGET, "day", 1)]
    short = policy(budgets=(budget(tokens=1_500),))
    assert denied(replay(calls, side(short))) == [(Reason.BUDGET, "day", 2)]
    run = grants(limits=Limits(max_cost=NanoUSD(1_000_000)))
    assert denied(replay(calls, side(grants=run))) == [(Reason.BUDGET, "run", 2)]


def test_an_audited_budget_denies_nothing() -> None:
    audit = policy(budgets=(budget(requests=0, mode="audit"),))
    assert replay([asked()], side(audit)).denied == ()


def test_a_rate_limit_denies_what_comes_too_fast() -> None:
    slow = policy(rate_limits=(RateLimit(name="slow", requests=1, window_ms=Millis(90_000)),))
    calls = [asked(n, target="small") for n in range(3)]
    assert denied(replay(calls, side(slow))) == [(Reason.RATE, "slow", 1)]
    tools = [did("tracker.list", {}, n) for n in range(3)]
    assert denied(replay(tools, side(slow))) == [(Reason.RATE, "slow", 1)]


def test_an_answer_that_was_lost_costs_what_was_booked_for_it() -> None:
    half = policy(models={**POLICY.models, "large": model(DEAR // 2)})
    found = replay([asked(booked=True, cost_nano=123)], side(half))
    assert (found.before_nano, found.after_nano) == (123, 123)


def test_other_prices_are_paid_for_the_recorded_tokens() -> None:
    half = policy(models={**POLICY.models, "large": model(DEAR // 2)})
    found = replay([asked()], side(half))
    assert (found.before_nano, found.after_nano) == (1_000 * DEAR, 1_000 * DEAR // 2)


def test_an_agent_that_is_gone_is_denied_and_a_stranger_is_left_out() -> None:
    calls = [asked(), asked(1, agent="notes"), asked(2, agent="user:ines")]
    found = backtest(calls, before=side(), after=side(names=("triage",)), priced_at=AT)
    assert found.strangers == 1
    notes, triage = found.agents
    assert denied(notes) == [(Reason.UNDECLARED, "main", 1)]
    assert not triage.differs


def test_a_renamed_agent_is_found_by_its_recorded_name() -> None:
    new = side(names=("scribe",))
    renamed = Side(new.policy, lambda name: new.agent("scribe" if name == "notes" else name))
    found = backtest(
        [asked(agent="notes")], before=side(names=("notes",)), after=renamed, priced_at=AT
    )
    assert not found.agents[0].differs


def test_nothing_recorded_comes_to_nothing() -> None:
    found = backtest([], before=side(), after=side(), priced_at=AT)
    assert (found.agents, found.calls, found.first) == ((), 0, None)


def _secretive(*hooks: Hook) -> Side:
    rule = Guardrail(name="no-keys", hooks=hooks, check=RegexCheck(pattern="key-[0-9]+"))
    changed = side(policy(guardrails=(rule,)))
    return replace(changed, guard=guarded(changed.policy.guardrails))


def test_a_guardrail_denies_the_arguments_and_the_results_that_it_refuses() -> None:
    answer = {"content": [{"type": "text", "text": "it is key-7"}]}
    calls = [
        did("tracker.list", {"query": "key-12"}),
        did("tracker.list", {"query": "all"}, 1, result=answer),
        did("tracker.list", None, 2),
        asked(3),
    ]
    both = replay(calls, _secretive(Hook.TOOL_INPUT, Hook.TOOL_OUTPUT))
    assert denied(both) == [(Reason.GUARDRAIL, "no-keys", 2)]
    assert denied(replay(calls, _secretive(Hook.TOOL_OUTPUT))) == [(Reason.GUARDRAIL, "no-keys", 1)]


def test_a_service_is_not_asked_about_the_past() -> None:
    http = HttpCheck(url="https://x.example", hosts=("x.example",), timeout_ms=Millis(1))
    rule = Guardrail(name="asks", hooks=(Hook.TOOL_INPUT,), check=http)
    changed = replace(side(policy(guardrails=(rule,))), guard=guarded((rule,)))
    assert replay([did("tracker.list", {"query": "x"})], changed).denied == ()


def test_input_written_to_a_cache_is_paid_as_that() -> None:
    dear = POLICY.models["large"].model_copy(
        update={"price": Price(input=NanoUSD(1), output=NanoUSD(1), cache_write=NanoUSD(3))}
    )
    found = replay(
        [asked(cache_write_tokens=400)], side(policy(models={**POLICY.models, "large": dear}))
    )
    assert found.after_nano == 500 + 3 * 400 + 100
