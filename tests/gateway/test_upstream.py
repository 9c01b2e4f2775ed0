"""Real HTTP providers with faults: translation, fallback, keys, revocation in mid-stream."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway import access
from gateway.policy import Model, Price, Provider, Retry, SecretRef, VirtualModel
from gateway.values import NanoUSD
from tests.gateway.stage import (
    KEY,
    NOW,
    FakeProvider,
    Stage,
    anthropic_text,
    anthropic_tool,
    openai_events,
    openai_text,
    openai_tool,
    policy,
    sse,
)

PRICE = Price(input=NanoUSD(10), output=NanoUSD(100))


@pytest.fixture
def served(stage: Stage, fake: FakeProvider) -> Iterator[Stage]:
    """`gpt` and `claude` on the fake provider, `second` on another target of it, `smart` both."""
    key = SecretRef(env="FAKE_KEY")
    providers = {
        "openai": Provider(kind="openai", base_url=f"{fake.url}/v1", key=key, timeout_seconds=3),
        "anthropic": Provider(kind="anthropic", base_url=fake.url, key=key),
        "gone": Provider(kind="openai", base_url="http://127.0.0.1:9/v1"),
        "elsewhere": Provider(
            kind="openai", base_url=f"{fake.url}/v1", key=key, hosts=("api.example.com",)
        ),
        "unset": Provider(kind="openai", base_url=f"{fake.url}/v1", key=SecretRef(env="NOPE")),
    }
    models = {
        "gpt": Model(provider="openai", id="gpt-x", price=PRICE),
        "claude": Model(provider="anthropic", id="claude-x", price=PRICE),
        "gone": Model(provider="gone", id="x", price=PRICE),
        "second": Model(provider="elsewhere", id="x", price=PRICE),
        "fast": Model(provider="unset", id="x", price=PRICE),
    }
    once = Retry(attempts=1)
    virtual = {
        "smart": VirtualModel(targets=("gone", "gpt", "claude"), retry=once),
        "alone": VirtualModel(targets=("gpt",), retry=once),
    }
    stage.publish(policy(providers=providers, models=models, virtual_models=virtual))
    stage.issue()
    yield stage.start(FAKE_KEY=KEY)
    stage.terminate()
    for path in (stage.log, *stage.state.glob("interlock.sqlite*")):
        text = path.read_bytes()
        assert KEY.encode() not in text, path
        assert b"token-of-run-1" not in text, path


def claude(stage: Stage, text: str = "hello", model: str = "gpt", **more: Any) -> Any:
    body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": text}]}
    return stage.post("/v1/messages", {**body, **more})


def test_each_dialect_is_served_by_each_kind_of_provider(served: Stage, fake: FakeProvider) -> None:
    for model, path in (("gpt", "/v1/chat/completions"), ("claude", "/v1/messages")):
        said = served.chat(model=model, max_tokens=77)
        assert said.json()["choices"][0]["message"]["content"] == "Hi!"
        assert said.headers["x-interlock-cost-nano"] == str(12 * 10 + 3 * 100)
        answered = claude(served, model=model)
        assert answered.json()["content"] == [{"type": "text", "text": "Hi!"}]
        assert answered.json()["usage"]["input_tokens"] == 12
        assert {request[0] for request in fake.requests} == {path}
        assert fake.requests[0][2]["max_tokens"] == 77
        fake.requests.clear()


def test_tool_calls_are_translated_both_ways(served: Stage, fake: FakeProvider) -> None:
    tool = {"name": "look", "description": "d", "input_schema": {"type": "object"}}
    fake.plan.put(openai_tool("look", '{"a"', ": 1}"))
    answer = claude(served, tools=[tool], tool_choice={"type": "any"}).json()
    assert answer["stop_reason"] == "tool_use"
    assert answer["content"] == [
        {"type": "tool_use", "id": "call_abc", "name": "look", "input": {"a": 1}}
    ]
    sent = fake.requests[-1][2]
    assert sent["tool_choice"] == "required"
    assert sent["tools"][0]["function"]["name"] == "look"

    fake.plan.put(anthropic_tool("look", '{"b"', ": 2}"))
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"z": 0}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "R"},
        {"role": "user", "content": "more"},
    ]
    body = {
        "model": "claude",
        "messages": messages,
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
    }
    said = served.post("/v1/chat/completions", body).json()["choices"][0]
    assert said["finish_reason"] == "tool_calls"
    (call,) = said["message"]["tool_calls"]
    assert call["function"] == {"name": "look", "arguments": '{"b": 2}'}
    sent = fake.requests[-1][2]
    assert sent["system"] == "S"
    assert [m["role"] for m in sent["messages"]] == ["user", "assistant", "user"]
    assert sent["messages"][1]["content"][0]["input"] == {"z": 0}
    assert [part["type"] for part in sent["messages"][2]["content"]] == ["tool_result", "text"]


@pytest.mark.parametrize("model", ["gpt", "claude"])
def test_images_reach_the_provider_in_its_own_form(
    served: Stage, fake: FakeProvider, model: str
) -> None:
    url = "data:image/png;base64,AAAA"
    content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    assert served.post("/v1/chat/completions", body).status == 200
    sent = json.dumps(fake.requests[-1][2]["messages"])
    assert (url if model == "gpt" else '"media_type": "image/png", "data": "AAAA"') in sent


def test_the_key_goes_to_the_provider_and_comes_back_nowhere(
    served: Stage, fake: FakeProvider
) -> None:
    def echo(handler: Any) -> None:
        handler.say(200, openai_text(f"your key is {KEY}"), "text/event-stream")

    fake.plan.put(echo)
    said = served.chat(model="gpt")
    assert fake.requests[0][1]["authorization"] == f"Bearer {KEY}"
    assert said.json()["choices"][0]["message"]["content"] == "your key is [redacted]"
    fake.plan.put(400)
    refused = served.chat(model="gpt")
    assert refused.status == 400
    assert "[redacted]" in refused.json()["error"]["message"]
    fake.plan.put(401)
    refused = served.chat(model="gpt")
    assert (refused.status, refused.code) == (502, "provider_error")
    assert KEY.encode() not in refused.body
    assert claude(served, model="claude").status == 200
    assert fake.requests[-1][1]["x-api-key"] == KEY


def test_a_key_is_not_sent_to_a_host_that_is_not_on_its_list(
    served: Stage, fake: FakeProvider
) -> None:
    refused = served.chat(model="second")
    assert refused.code == "provider_error"
    assert "api.example.com" in refused.json()["error"]["message"]
    assert fake.requests == []


def test_a_missing_key_names_the_variable(served: Stage, fake: FakeProvider) -> None:
    assert "NOPE" in served.chat(model="fast").json()["error"]["message"]
    assert fake.requests == []


@pytest.mark.parametrize(
    ("fault", "state"), [(429, "released"), (503, "released"), (500, "released"), (502, "unknown")]
)
def test_a_failing_target_falls_back_and_every_attempt_has_its_row(
    served: Stage, fake: FakeProvider, fault: int, state: str
) -> None:
    fake.plan.put(fault)
    said = served.chat(model="smart", key="run-1/1/0")
    assert said.status == 200
    assert said.headers["x-interlock-model"] == "claude"
    rows = served.rows()
    assert [(row["target"], row["state"]) for row in rows] == [
        ("gone", "released"),
        ("gpt", state),
        ("claude", "settled"),
    ]
    assert [row["attempt"] for row in rows] == [0, 1, 2]
    worst = rows[1]["reserved_nano"] if state == "unknown" else 0
    assert rows[1]["cost_nano"] == worst
    assert said.headers["x-interlock-cost-nano"] == str(worst + 420)


def test_when_every_target_is_busy_the_client_hears_when_to_come_back(
    served: Stage, fake: FakeProvider
) -> None:
    fake.plan.put(429)
    refused = served.chat(model="alone", key="run-1/1/0")
    assert (refused.status, refused.code) == (429, "provider_busy")
    assert refused.headers["retry-after"] == "7"
    assert served.chat(model="alone", key="run-1/1/0").status == 200, "a released key is free"


def test_a_refused_request_does_not_fall_back(served: Stage, fake: FakeProvider) -> None:
    fake.plan.put(422)
    refused = served.chat(model="smart")
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert len(fake.requests) == 1


def test_a_stalled_provider_is_given_up_and_charged_at_worst_case(
    served: Stage, fake: FakeProvider
) -> None:
    fake.plan.put(lambda _handler: fake.release.wait(60))
    said = served.chat(model="smart")
    assert said.headers["x-interlock-model"] == "claude"
    row = served.rows()[1]
    assert (row["state"], row["cost_nano"]) == ("unknown", row["reserved_nano"])


def test_a_stream_that_breaks_ends_in_an_error_event_and_is_unknown(
    served: Stage, fake: FakeProvider
) -> None:
    fake.plan.put(lambda handler: handler.begin(sse(openai_events("half an")[0])))
    streamed = served.chat(model="smart", stream=True)
    assert streamed.status == 200
    assert b"half an" in streamed.body
    assert b'"code": "provider_error"' in streamed.body
    assert b"[DONE]" not in streamed.body
    assert served.rows()[-1]["state"] == "unknown"
    assert served.rows()[-1]["target"] == "gpt", "no fallback once the client has seen text"


def test_nonsense_from_a_provider_is_a_provider_error(served: Stage, fake: FakeProvider) -> None:
    fake.plan.put(b"data: {nonsense\n\n")
    assert served.chat(model="gpt").code == "provider_error"
    fake.plan.put(sse({"choices": "what"}))
    assert served.chat(model="gpt").code == "provider_error"


def test_usage_that_is_not_reported_is_charged_as_reserved(
    served: Stage, fake: FakeProvider
) -> None:
    fake.plan.put(openai_text("hm", usage=None))
    said = served.chat(model="gpt", max_tokens=20)
    (row,) = served.rows()
    assert row["cost_nano"] == row["reserved_nano"] == int(said.headers["x-interlock-cost-nano"])
    assert "no usage" in row["error"]


def streaming_when(served: Stage, fake: FakeProvider, happens: Callable[[], None]) -> bytes:
    """What a client reads of a stream whose provider holds on while something happens."""

    def hold(handler: Any) -> None:
        handler.begin(sse(openai_events("first words")[0]))
        fake.release.wait(60)

    fake.plan.put(hold)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(served.chat, model="gpt", stream=True)
        fake.arrived.get(timeout=30)
        begun = time.monotonic()
        happens()
        streamed = running.result(timeout=20)
        assert time.monotonic() - begun < 2.5
    (row,) = served.rows()
    assert (row["state"], row["cost_nano"]) == ("unknown", row["reserved_nano"])
    assert "harm seen" in row["error"]
    return streamed.body


def test_revocation_cuts_a_running_stream(served: Stage, fake: FakeProvider) -> None:
    said = streaming_when(served, fake, lambda: served.revoke("run-1"))
    assert b'"code": "revoked"' in said


@pytest.mark.parametrize("agent", ["triage", "*"])
def test_a_stop_cuts_a_running_stream(served: Stage, fake: FakeProvider, agent: str) -> None:
    def stop() -> None:
        with served.database.transaction() as tx:
            access.stop(tx, agent, reason="harm seen", actor="ada", now=NOW)

    assert b'"code": "stopped"' in streaming_when(served, fake, stop)
    with served.database.transaction() as tx:
        access.unstop(tx, agent)
    assert served.chat(model="gpt").status == 200


def test_a_client_that_leaves_finds_its_answer_by_key(served: Stage, fake: FakeProvider) -> None:
    import http.client

    def wait(handler: Any) -> None:
        fake.release.wait(60)
        handler.say(200, openai_text("late"), "text/event-stream")

    fake.plan.put(wait)
    body = {"model": "gpt", "messages": [{"role": "user", "content": "hello"}]}
    client = http.client.HTTPConnection("127.0.0.1", served.ready["port"])
    headers = {"authorization": "Bearer token-of-run-1", "x-interlock-call-key": "run-1/1/0"}
    client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    fake.arrived.get(timeout=30)
    client.close()
    fake.release.set()
    said = served.chat(model="gpt", key="run-1/1/0")
    assert said.json()["choices"][0]["message"]["content"] == "late"
    assert len(fake.requests) == 1


def test_a_key_can_come_from_a_file(stage: Stage, fake: FakeProvider, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    provider = Provider(
        kind="anthropic", base_url=fake.url, key=SecretRef(file=str(tmp_path / "key"))
    )
    stage.publish(
        policy(
            providers={"a": provider}, models={"claude": Model(provider="a", id="c", price=PRICE)}
        )
    )
    stage.issue()
    stage.start()
    fake.plan.put(anthropic_text("yes"))
    assert stage.chat(model="claude").status == 200
    assert fake.requests[0][1]["x-api-key"] == KEY
