"""What goes on as the client wrote it, and what must not: its mistakes are never the provider's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.policy import Cache, Guardrail
from gateway.policy.rules import Hook, RegexCheck, SecretsCheck
from gateway.values import Millis
from tests.gateway.stage import FakeProvider, Stage, openai_events, sse
from tests.gateway.test_enforced import said, streamed, world


@pytest.fixture
def served(stage: Stage, fake: FakeProvider) -> Stage:
    stage.issue()
    stage.start()
    stage.publish(world(fake))
    return stage


def refused(answer: Any) -> str:
    assert (answer.status, answer.code) == (400, "invalid_request"), answer.body
    return str(answer.json()["error"]["message"])


def test_a_request_that_cannot_be_translated_is_the_clients_mistake(
    served: Stage, fake: FakeProvider
) -> None:
    wrong = {"model": "claude", "messages": [{"role": "user", "content": 7}]}
    for _ in range(10):
        refused(served.post("/v1/chat/completions", wrong))
    assert served.rows() == [], "nothing was reserved for it"
    assert said(served, "well", model="claude") == "Hi!", "and its target is in good health"


@pytest.mark.parametrize("tools", [7, ["x"], [{"type": 7}], [{"type": "web_search"}, {"type": []}]])
def test_tools_that_cannot_be_read_do_not_go_out(
    served: Stage, fake: FakeProvider, tools: Any
) -> None:
    assert "`tools`" in refused(served.chat(model="gpt", tools=tools))
    assert (fake.requests, served.rows()) == ([], [])


def test_only_the_tools_that_the_client_carries_out_go_out(
    served: Stage, fake: FakeProvider
) -> None:
    mine = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    said(served, "a", model="gpt", tools=[{"type": "web_search"}, mine], tool_choice="auto")
    said(served, "b", model="gpt", tools=[{"type": "web_search"}], tool_choice="auto")
    said(served, "c", model="gpt", tools=None)
    first, second, third = (body for _, _, body in fake.requests)
    assert (first["tools"], first["tool_choice"]) == ([mine], "auto")
    assert not {"tools", "tool_choice"} & set(second)
    assert "tools" not in third


def test_what_would_change_the_price_is_left_out(served: Stage, fake: FakeProvider) -> None:
    said(served, "quick", model="gpt", service_tier="priority", seed=7)
    sent = fake.requests[0][2]
    assert "service_tier" not in sent
    assert sent["seed"] == 7
    base = world(fake)
    gpt = base.models["gpt"].model_copy(update={"parameters": {"service_tier": "flex"}})
    served.publish(base.model_copy(update={"models": {**base.models, "gpt": gpt}}))
    said(served, "slow", model="gpt", service_tier="priority")
    assert fake.requests[1][2]["service_tier"] == "flex", "the policy may"


@pytest.mark.parametrize("spelled", ["file_id", "\\u0066ile_id"])
def test_a_file_that_the_provider_keeps_is_refused(
    served: Stage, fake: FakeProvider, spelled: str
) -> None:
    part = {"type": "file", "file": {"file_id": "file-1"}}
    body = {"model": "gpt", "messages": [{"role": "user", "content": [part]}]}
    sent = json.dumps(body).replace("file_id", spelled).encode()
    assert "`file_id`" in refused(served.post("/v1/chat/completions", sent))
    assert fake.requests == []


def test_a_tool_may_speak_of_files_by_their_ids(served: Stage, fake: FakeProvider) -> None:
    parameters = {"type": "object", "properties": {"file_id": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "open", "parameters": parameters}}
    called = {"name": "open", "arguments": '{"file_id": "7"}'}
    messages = [
        {"role": "user", "content": 'open "file_id" 7'},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": called}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"file_id": "7"}'},
    ]
    answer = served.post(
        "/v1/chat/completions", {"model": "gpt", "messages": messages, "tools": [tool]}
    )
    assert answer.status == 200, answer.body


def test_numbers_of_tokens_do_not_pass_a_rule_that_must_read(
    served: Stage, fake: FakeProvider
) -> None:
    rule = Guardrail(name="g", hooks=(Hook.MODEL_INPUT,), check=SecretsCheck())
    served.publish(world(fake, guardrails=(rule,)))
    for tokens in ([1, 2], [[1, 2], [3]]):
        why = refused(served.post("/v1/embeddings", {"model": "gpt", "input": tokens}))
        assert "send text" in why
    assert fake.requests == []


def test_reasoning_without_a_signature_is_looked_at_as_it_comes(
    served: Stage, fake: FakeProvider
) -> None:
    kraken = RegexCheck(pattern="(?i)project kraken", replacement="[project]")
    rule = Guardrail(name="g", hooks=(Hook.MODEL_OUTPUT,), check=kraken, action="mutate")
    served.publish(world(fake, guardrails=(rule,)))
    parts = [
        {"choices": [{"index": 0, "delta": {"reasoning_content": part}, "finish_reason": None}]}
        for part in ("They mean Proj", "ect Kraken, I think.")
    ]
    fake.plan.put(sse(*parts, *openai_events("Hi!")))
    found, body = streamed(served, "?", model="gpt")
    assert found == "Hi!"
    assert "raken" not in body
    assert "[project], I think." in body


def test_a_stored_stream_is_given_as_the_client_asked_for_it(
    served: Stage, fake: FakeProvider
) -> None:
    served.publish(world(fake, caches=(Cache(name="c", ttl_ms=Millis(3_600_000)),)))
    with_usage = {"stream_options": {"include_usage": True}}
    bodies = [
        streamed(served, "same", model="gpt", **options)[1]
        for options in ({}, {}, with_usage, with_usage)
    ]
    assert len(fake.requests) == 1
    assert ["prompt_tokens" in body for body in bodies] == [False, False, True, True]
