"""What the policy asks of every call besides grants, through a real gateway.

Limits on how often, guardrails on what is said, answers of equal requests, quotas, places, and the
way to the next target.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.policy import (
    BudgetRule,
    Cache,
    Guardrail,
    Model,
    Policy,
    Price,
    Provider,
    RateLimit,
    Retry,
    TapeEntry,
    VirtualModel,
    Window,
)
from gateway.policy.rules import Hook, Match, RegexCheck, SchemaCheck, SecretsCheck
from gateway.values import Millis, NanoUSD, Purpose
from tests.gateway.stage import (
    FakeProvider,
    Stage,
    anthropic_text,
    openai_events,
    policy,
    principal,
    sse,
)
from tests.gateway.test_tools import refused, start, text

MINUTE, HOUR = Millis(60_000), Millis(3_600_000)
KEY = "AKIA" + "IOSFODNN7EXAMPL3"
PRICE = Price(input=NanoUSD(10), output=NanoUSD(100))


@pytest.fixture
def served(stage: Stage) -> Stage:
    stage.issue()
    stage.start()
    return stage


def world(fake: FakeProvider, **changes: Any) -> Policy:
    """`gpt` natively, `claude` translated, both at the fake provider; the script as `fast`."""
    base = policy()
    values: dict[str, Any] = {
        "providers": {
            **base.providers,
            "o": Provider(kind="openai", base_url=f"{fake.url}/v1"),
            "a": Provider(kind="anthropic", base_url=fake.url),
        },
        "models": {
            **base.models,
            "gpt": Model(provider="o", id="g", price=PRICE),
            "claude": Model(provider="a", id="c", price=PRICE),
        },
    }
    return policy(**{**values, **changes})


def said(stage: Stage, what: str, **more: Any) -> str:
    answer = stage.chat(what, **more)
    assert answer.status == 200, answer.body
    return str(answer.json()["choices"][0]["message"]["content"])


def streamed(stage: Stage, what: str, **more: Any) -> tuple[str, str]:
    """(the text of a stream, its whole body)."""
    answer = stage.chat(what, stream=True, **more)
    assert answer.status == 200, answer.body
    body = answer.body.decode()
    found = ""
    for line in body.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:]).get("choices", ()):
                found += choice["delta"].get("content") or ""
    return found, body


# --- rate limits


def test_a_rate_limit_refuses_and_says_when_to_come_back(served: Stage, fake: FakeProvider) -> None:
    served.publish(world(fake, rate_limits=(RateLimit(name="two", requests=2, window_ms=MINUTE),)))
    assert [served.chat().status for _ in range(2)] == [200, 200]
    refused = served.chat()
    assert (refused.status, refused.code) == (429, "rate_limited")
    assert refused.json()["error"]["rule"] == "two"
    assert 0 < int(refused.headers["retry-after"]) <= 30
    assert len(served.rows()) == 2, "it never became a call"


def test_a_limit_about_tools_counts_tool_calls_only(stage: Stage) -> None:
    served = stage
    start(served)
    limit = RateLimit(name="t", requests=1, window_ms=MINUTE, match=Match(tool="effects.*"))
    current = served.database.one("SELECT document FROM policies ORDER BY published_at DESC")
    assert current is not None
    before = Policy.model_validate_json(current["document"])
    served.publish(before.model_copy(update={"rate_limits": (limit,)}))
    assert text(served.tool("write", text="a"))
    assert refused(served.tool("write", text="b")) == "rate_limited"
    assert served.chat().status == 200


def test_a_rate_limit_is_where_it_was_after_a_restart(served: Stage, fake: FakeProvider) -> None:
    served.publish(world(fake, rate_limits=(RateLimit(name="one", requests=1, window_ms=HOUR),)))
    assert served.chat().status == 200
    served.terminate()
    served.start()
    assert served.chat().code == "rate_limited"


# --- guardrails


def guard(hook: Hook, check: Any, **changes: Any) -> Guardrail:
    return Guardrail(name="g", hooks=(hook,), check=check, **changes)


def test_a_guardrail_refuses_what_was_to_go_to_the_model(served: Stage, fake: FakeProvider) -> None:
    served.publish(world(fake, guardrails=(guard(Hook.MODEL_INPUT, SecretsCheck()),)))
    answer = served.chat(f"use {KEY} please", model="gpt")
    assert (answer.status, answer.code) == (403, "guardrail")
    assert answer.json()["error"]["rule"] == "g"
    assert KEY not in answer.body.decode()
    assert fake.requests == []
    assert served.rows() == []


def test_a_guardrail_that_mutates_sends_the_rest_on(served: Stage, fake: FakeProvider) -> None:
    served.publish(
        world(fake, guardrails=(guard(Hook.MODEL_INPUT, SecretsCheck(), action="mutate"),))
    )
    assert said(served, f"use {KEY} please", model="gpt") == "Hi!"
    sent = fake.requests[0][2]["messages"][0]["content"]
    assert sent.startswith("use [")
    assert KEY not in sent


def test_an_audit_guardrail_only_counts(served: Stage, fake: FakeProvider) -> None:
    served.publish(world(fake, guardrails=(guard(Hook.MODEL_INPUT, SecretsCheck(), mode="audit"),)))
    assert said(served, f"use {KEY}", model="gpt") == "Hi!"
    assert KEY in fake.requests[0][2]["messages"][0]["content"]
    assert "interlock_audit_hits_total{" in served.get("/metrics").body.decode()


KRAKEN = RegexCheck(pattern="(?i)project kraken", replacement="[project]")


@pytest.mark.parametrize("model", ["gpt", "claude"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_looked_at_whole_or_as_it_comes(
    served: Stage, fake: FakeProvider, model: str, stream: bool
) -> None:
    served.publish(world(fake, guardrails=(guard(Hook.MODEL_OUTPUT, KRAKEN, action="mutate"),)))
    if model == "gpt":
        # The name lies across two pieces.
        parts = [openai_events("We call it Proj")[0], *openai_events("ect Kraken here.")]
        fake.plan.put(sse(*parts))
    else:
        fake.plan.put(anthropic_text("We call it Project Kraken here."))
    found = streamed(served, "?", model=model)[0] if stream else said(served, "?", model=model)
    assert found == "We call it [project] here."
    (row,) = served.rows()
    assert row["state"] == "settled"
    assert "raken" not in row["response"], "what was not given is not kept either"


def test_a_refused_answer_is_paid_for_and_not_given_again(
    served: Stage, fake: FakeProvider
) -> None:
    check = RegexCheck(pattern="Hi!")
    served.publish(world(fake, guardrails=(guard(Hook.MODEL_OUTPUT, check),)))
    for _ in range(2):
        answer = served.chat(model="gpt", key="run-1/1/0")
        assert (answer.status, answer.code) == (403, "guardrail")
    (row,) = served.rows()
    assert (row["state"], row["cost_nano"], row["response"]) == ("settled", 12 * 10 + 300, None)
    assert len(fake.requests) == 1


def test_a_stream_that_breaks_a_rule_ends_with_the_dialects_error(
    served: Stage, fake: FakeProvider
) -> None:
    check = RegexCheck(pattern="forbidden")
    served.publish(world(fake, guardrails=(guard(Hook.MODEL_OUTPUT, check),)))
    fake.plan.put(sse(*[openai_events("x" * 400)[0], *openai_events(" forbidden words")]))
    found, body = streamed(served, "?", model="gpt")
    assert "forbidden" not in found
    assert '"code": "guardrail"' in body


def test_a_rule_about_the_whole_holds_a_stream_back(served: Stage, fake: FakeProvider) -> None:
    check = SchemaCheck(json_schema={"type": "object", "required": ["ok"]})
    served.publish(world(fake, guardrails=(guard(Hook.MODEL_OUTPUT, check),)))
    fake.plan.put(sse(*openai_events('{"ok": true}')))
    assert streamed(served, "?", model="gpt")[0] == '{"ok": true}'
    fake.plan.put(sse(*openai_events('{"no": true}')))
    refused = served.chat("?", model="gpt", stream=True)
    assert (refused.status, refused.code) == (403, "guardrail"), "nothing had been said yet"


def test_guardrails_look_at_tools_arguments_and_results(stage: Stage) -> None:
    served = stage
    start(served)
    row = served.database.one("SELECT document FROM policies ORDER BY published_at DESC")
    assert row is not None
    before = Policy.model_validate_json(row["document"])
    rules = (
        guard(Hook.TOOL_INPUT, SecretsCheck()),
        Guardrail(name="out", hooks=(Hook.TOOL_OUTPUT,), check=KRAKEN, action="mutate"),
    )
    served.publish(before.model_copy(update={"guardrails": rules}))
    assert refused(served.tool("write", text=f"key {KEY}")) == "guardrail"
    assert text(served.tool("write", text="about Project Kraken")) == "about [project]"


# --- answers of equal requests


def test_an_equal_request_is_answered_from_what_was_answered_before(
    served: Stage, fake: FakeProvider
) -> None:
    served.publish(world(fake, caches=(Cache(name="c", ttl_ms=HOUR),)))
    first = served.chat("same", model="gpt")
    again = served.chat("same", model="gpt")
    assert again.json()["choices"] == first.json()["choices"]
    assert again.headers["x-interlock-cached"] == "1"
    assert again.headers["x-interlock-cost-nano"] == "0"
    assert len(fake.requests) == 1
    paid, free = served.rows()
    assert (free["state"], free["cost_nano"]) == ("settled", 0)
    assert free["cached_from"] == f"{paid['run']}/{paid['step']}/0"
    served.chat("other", model="gpt")
    assert len(fake.requests) == 2


def test_a_stream_is_answered_from_a_whole_and_a_whole_from_a_stream(
    served: Stage, fake: FakeProvider
) -> None:
    served.publish(world(fake, caches=(Cache(name="c", ttl_ms=HOUR),)))
    assert said(served, "a", model="gpt") == streamed(served, "a", model="gpt")[0] == "Hi!"
    assert streamed(served, "b", model="gpt")[0] == said(served, "b", model="gpt") == "Hi!"
    assert len(fake.requests) == 2


def test_evals_and_requests_with_tools_are_always_sent(served: Stage, fake: FakeProvider) -> None:
    served.publish(world(fake, caches=(Cache(name="c", ttl_ms=HOUR),)))
    tool = {"type": "function", "function": {"name": "x", "parameters": {}}}
    for _ in range(2):
        served.chat("t", model="gpt", tools=[tool])
    served.issue(principal("run-2", purpose=Purpose.EVAL), token="eval")
    for _ in range(2):
        served.chat("e", model="gpt", token="eval")
    assert len(fake.requests) == 4


@pytest.mark.parametrize(("namespace", "sent"), [("agent", 2), ("team", 1), ("fleet", 1)])
def test_a_namespace_says_who_shares_an_answer(
    served: Stage, fake: FakeProvider, namespace: Any, sent: int
) -> None:
    from tests.gateway.stage import ceiling

    agents = {"triage": ceiling(), "notes": ceiling()}
    cache = Cache(name="c", ttl_ms=HOUR, namespace=namespace)
    served.publish(world(fake, caches=(cache,)), agents)
    served.issue(principal("run-2", agent="notes"), token="other")
    served.chat("same", model="gpt")
    served.chat("same", model="gpt", token="other")
    assert len(fake.requests) == sent


# --- quotas, places, targets


def test_a_budget_may_count_requests(served: Stage, fake: FakeProvider) -> None:
    rule = BudgetRule(name="three", requests=3, window=Window.DAY)
    served.publish(world(fake, budgets=(rule,)))
    assert [served.chat().status for _ in range(3)] == [200] * 3
    refused = served.chat()
    assert (refused.status, refused.code) == (429, "budget_exceeded")
    error = refused.json()["error"]
    assert (error["rule"], error["left_requests"]) == ("three", 0)
    assert error["resets_at"]


def test_a_full_queue_sends_calls_away(served: Stage, fake: FakeProvider) -> None:
    provider = Provider(kind="openai", base_url=f"{fake.url}/v1", max_concurrent=1, max_waiting=0)
    base = world(fake)
    served.publish(base.model_copy(update={"providers": {**base.providers, "o": provider}}))
    fake.plan.put(lambda handler: (fake.release.wait(60), handler.say(200, sse("[DONE]"))))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.chat, model="gpt")
        fake.arrived.get(timeout=30)
        refused = served.chat(model="gpt")
        assert (refused.status, refused.code) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        fake.release.set()
        first.result(timeout=30)


def test_a_target_that_says_nothing_in_time_is_left_for_the_next(
    served: Stage, fake: FakeProvider
) -> None:
    virtual = VirtualModel(
        targets=("gpt", "claude"), first_token_ms=Millis(200), retry=Retry(attempts=1)
    )
    served.publish(world(fake, virtual_models={"smart": virtual}))
    fake.plan.put(lambda _handler: fake.release.wait(60))
    found, body = streamed(served, "?", model="smart")
    assert found == "Hi!"
    assert '"model":"claude"' in body
    assert [(r["target"], r["state"]) for r in served.rows()] == [
        ("gpt", "unknown"),
        ("claude", "settled"),
    ]


def test_a_busy_target_is_asked_again_before_the_next(served: Stage, fake: FakeProvider) -> None:
    virtual = VirtualModel(targets=("gpt", "claude"), retry=Retry(attempts=2, backoff_ms=Millis(1)))
    served.publish(world(fake, virtual_models={"smart": virtual}))
    fake.plan.put(503)
    answer = served.chat(model="smart", key="run-1/1/0")
    assert answer.headers["x-interlock-model"] == "gpt"
    assert [(r["attempt"], r["state"]) for r in served.rows()] == [(0, "released"), (1, "settled")]


def test_a_stream_that_dies_before_its_first_token_goes_to_the_next_target(
    served: Stage, fake: FakeProvider
) -> None:
    virtual = VirtualModel(targets=("gpt", "claude"), retry=Retry(attempts=1))
    served.publish(world(fake, virtual_models={"smart": virtual}))
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    fake.plan.put(sse({"choices": [role]}))
    assert streamed(served, "?", model="smart")[0] == "Hi!"
    fake.plan.put(sse(openai_events("half a sen")[0]))
    found, body = streamed(served, "?", model="smart")
    assert found == "half a sen"
    assert '"code": "provider_error"' in body


def test_a_models_parameters_go_over_the_clients(served: Stage, fake: FakeProvider) -> None:
    model = Model(provider="o", id="g", price=PRICE, parameters={"temperature": "0.2"})
    base = world(fake)
    served.publish(base.model_copy(update={"models": {**base.models, "gpt": model}}))
    said(served, "?", model="gpt", temperature=1.5, seed=7)
    sent = fake.requests[0][2]
    assert (sent["temperature"], sent["seed"]) == (0.2, 7)


def test_what_this_program_has_never_heard_of_is_passed_on(
    served: Stage, fake: FakeProvider
) -> None:
    served.publish(world(fake))
    message = {"role": "user", "content": [{"type": "text", "text": "x", "novel": {"a": 1.5}}]}
    body = {"model": "gpt", "messages": [message], "brand_new": [1, {"b": None}]}
    assert served.post("/v1/chat/completions", body).status == 200
    sent = fake.requests[0][2]
    assert sent["messages"] == [message]
    assert sent["brand_new"] == [1, {"b": None}]
    assert sent["model"] == "g"


def test_tools_that_the_provider_would_carry_out_are_taken_out(
    served: Stage, fake: FakeProvider
) -> None:
    served.publish(world(fake))
    mine = {"name": "x", "input_schema": {"type": "object"}}
    body = {
        "model": "claude",
        "max_tokens": 20,
        "messages": [{"role": "user", "content": "?"}],
        "tools": [mine, {"type": "web_search_20250305", "name": "web_search"}],
        "mcp_servers": [{"type": "url", "url": "https://evil.example/mcp"}],
    }
    assert served.post("/v1/messages", body).status == 200
    sent = fake.requests[0][2]
    assert sent["tools"] == [mine]
    assert "mcp_servers" not in sent


def test_metrics_say_where_a_budget_stands(served: Stage, fake: FakeProvider) -> None:
    rule = BudgetRule(name="day", limit=NanoUSD(10**9), window=Window.DAY)
    served.publish(world(fake, budgets=(rule,)))
    said(served, "?", model="gpt")
    text = served.get("/metrics", token=None).body.decode()
    spent = (12 * 10 + 3 * 100) / 10**9
    assert f'interlock_budget_spent_dollars{{agent="",rule="day"}} {spent}' in text
    assert 'interlock_budget_limit_dollars{agent="",rule="day"} 1.0' in text


def test_a_new_policy_drops_no_stream_and_holds_for_the_next_call(
    served: Stage, fake: FakeProvider
) -> None:
    served.publish(world(fake))
    first, *rest = openai_events("one, two")

    def slowly(handler: Any) -> None:
        handler.begin(sse(first))
        fake.release.wait(60)
        handler.wfile.write(sse(*rest))

    fake.plan.put(slowly)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(streamed, served, "?", model="gpt")
        fake.arrived.get(timeout=30)
        served.publish(world(fake, guardrails=(guard(Hook.MODEL_INPUT, SecretsCheck()),)))
        assert served.chat(f"use {KEY}", model="gpt").code == "guardrail"
        fake.release.set()
        assert running.result(timeout=30)[0] == "one, two"


def test_what_is_recorded_can_be_played(stage: Stage, fake: FakeProvider, tmp_path: Path) -> None:
    stage.publish(world(fake))
    stage.issue()
    stage.start("--record", str(tmp_path / "tapes"))
    heard = said(stage, "play it again", model="gpt")
    stage.terminate()
    (file,) = (tmp_path / "tapes").glob("**/*.jsonl")
    tape = tuple(TapeEntry.model_validate_json(line) for line in file.read_text().splitlines())
    model = Model(provider="t", id="g", price=PRICE)
    played = Provider(kind="cassette", tape=tape)
    base = world(fake)
    stage.publish(base.model_copy(update={"providers": {"t": played}, "models": {"gpt": model}}))
    stage.start()
    assert said(stage, "play it again", model="gpt") == heard
    assert stage.chat("something else", model="gpt").status >= 400
    assert len(fake.requests) == 1


def test_an_answer_is_not_given_again_under_another_policy_or_past_a_guardrail(
    served: Stage, fake: FakeProvider
) -> None:
    caches = (Cache(name="c", ttl_ms=HOUR),)
    served.publish(world(fake, caches=caches))
    served.chat("same", model="gpt")
    served.publish(
        world(fake, caches=caches, rate_limits=()).model_copy(update={"destructive": ("x.*",)})
    )
    assert "x-interlock-cached" not in served.chat("same", model="gpt").headers
    served.publish(
        world(fake, caches=caches, guardrails=(guard(Hook.MODEL_OUTPUT, KRAKEN, action="mutate"),))
    )
    for _ in range(2):
        assert "x-interlock-cached" not in served.chat("same", model="gpt").headers
    assert len(fake.requests) == 4
