"""Where a provider is and what it is asked in; cassettes and recordings."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from gateway.keys import Keyring
from gateway.policy import Model, Price, Provider, SecretRef, TapeEntry
from gateway.providers import serving, tape, wire
from gateway.providers.asked import Asked
from gateway.providers.pieces import End
from gateway.providers.stored import Frame
from gateway.providers.tape import Recordings, Tee, digest
from gateway.providers.upstream import Upstream, build_client
from gateway.refusals import Refusal
from gateway.routing import Failure, Target
from gateway.values import CallKey, NanoUSD
from tests.gateway.spoken import Head, answer, chunks, delta, target
from tests.gateway.stage import (
    KEY,
    FakeProvider,
    Stage,
    anthropic_text,
    openai_text,
    openai_tool,
    policy,
    sse,
)

PRICE = Price(input=NanoUSD(10), output=NanoUSD(100))


def place(provider: Provider, api: Any, **model: Any) -> wire.Endpoint:
    return wire.endpoint(Keyring({"K": KEY}), target(provider, **model), api)


REF = SecretRef(env="K")


@pytest.mark.parametrize(
    ("provider", "api", "url", "header"),
    [
        (
            Provider(kind="openai", key=REF),
            "responses",
            "https://api.openai.com/v1/responses",
            "authorization",
        ),
        (
            Provider(kind="openai", key=REF, base_url="http://gpu:8000/v1/"),
            "chat",
            "http://gpu:8000/v1/chat/completions",
            "authorization",
        ),
        (
            Provider(kind="anthropic", key=REF),
            "messages",
            "https://api.anthropic.com/v1/messages",
            "x-api-key",
        ),
        (
            Provider(kind="openai", key=REF, base_url="http://gpu:8000/v1", apis=("messages",)),
            "messages",
            "http://gpu:8000/v1/messages",
            "x-api-key",
        ),
        (
            Provider(
                kind="azure", key=REF, base_url="https://x.openai.azure.com", api_version="2024-10"
            ),
            "chat",
            "https://x.openai.azure.com/openai/deployments/my%2Fgpt/chat/completions"
            "?api-version=2024-10",
            "api-key",
        ),
        (
            Provider(
                kind="azure", key=REF, base_url="https://x.openai.azure.com", api_version="2025-03"
            ),
            "responses",
            "https://x.openai.azure.com/openai/responses?api-version=2025-03",
            "api-key",
        ),
        (
            Provider(kind="azure", key=REF, base_url="https://x.openai.azure.com/openai/v1/"),
            "embeddings",
            "https://x.openai.azure.com/openai/v1/embeddings",
            "api-key",
        ),
    ],
)
def test_each_kind_has_its_address_and_its_header(
    provider: Provider, api: Any, url: str, header: str
) -> None:
    found = wire.endpoint(
        Keyring({"K": KEY}),
        Target("m", Model(provider="p", id="my/gpt"), "p", provider),
        api,
    )
    assert found.url == url
    assert found.headers[header].endswith(KEY)


def test_an_azure_provider_without_an_address_says_what_is_missing() -> None:
    with pytest.raises(Failure, match="base_url"):
        place(Provider(kind="azure"), "chat")


def test_a_key_stays_with_its_hosts_whatever_the_api() -> None:
    away = Provider(kind="anthropic", key=REF, base_url="http://evil/v1", hosts=("good",))
    with pytest.raises(Refusal, match="good"):
        place(away, "messages")


@pytest.mark.parametrize(
    ("provider", "apis"),
    [
        (Provider(kind="openai"), ("chat", "responses", "embeddings")),
        (Provider(kind="openai", base_url="http://127.0.0.1:11434/v1"), ("chat", "embeddings")),
        (Provider(kind="azure", base_url="https://x"), ("chat", "responses", "embeddings")),
        (Provider(kind="anthropic"), ("messages",)),
        (Provider(kind="scripted"), wire.ALL),
        (Provider(kind="cassette"), wire.ALL),
        (Provider(kind="openai", apis=("responses",)), ("responses",)),
    ],
)
def test_what_a_provider_can_be_asked_in(provider: Provider, apis: tuple[str, ...]) -> None:
    assert wire.apis_of(provider) == apis


def test_parameters_put_over_take_away_and_become_numbers() -> None:
    body = {"temperature": 1, "reasoning": {"effort": "low", "summary": "auto"}, "seed": 1}
    over = {"temperature": "0.2", "seed": None, "reasoning": {"effort": "high"}, "top_k": "4"}
    assert wire.overridden(body, over) == {
        "temperature": 0.2,
        "reasoning": {"effort": "high", "summary": "auto"},
        "top_k": 4,
    }


# --- tapes


@pytest.fixture
def recording(stage: Stage, fake: FakeProvider) -> Stage:
    """`gpt` and `claude` on a fake provider."""
    key = SecretRef(env="FAKE_KEY")
    stage.publish(
        policy(
            providers={
                "o": Provider(kind="openai", base_url=f"{fake.url}/v1", key=key),
                "a": Provider(kind="anthropic", base_url=fake.url, key=key),
            },
            models={
                "gpt": Model(provider="o", id="gpt-x", price=PRICE),
                "claude": Model(provider="a", id="claude-x", price=PRICE),
            },
        )
    )
    stage.issue()
    return stage


def test_what_differs_between_two_runs_is_not_part_of_the_digest() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "ä"}], "temperature": 0.5}
    volatile = {"stream": True, "max_tokens": 7, "user": "u", "stream_options": {}}
    assert digest("chat", body) == digest("chat", {**volatile, **body})
    assert digest("chat", body) != digest("messages", body)
    assert digest("chat", body) != digest("chat", {**body, "temperature": 0.6})


def read_through(head: Any) -> bytes:
    """Every piece of a body."""

    async def read() -> bytes:
        return b"".join([chunk async for chunk in answer_of(head).chunks()])

    return asyncio.run(read())


def answer_of(head: Any) -> Any:
    return replace(answer(), response=head)


def test_a_recording_holds_no_key_and_is_played_again_in_its_pieces(tmp_path: Path) -> None:
    said = chunks(delta(content=f"your key is {KEY}"), delta("stop"))
    tee = Tee(Head(said[:40], said[40:]), Recordings(tmp_path / "tapes"), "o", "d1")
    assert read_through(tee) == said
    tee.finish(KEY)
    text = (tmp_path / "tapes" / "o.jsonl").read_text()
    assert KEY not in text
    entry = TapeEntry.model_validate_json(text)
    again = tape.play(Provider(kind="cassette", tape=(entry,)), "d1", where="p")
    assert read_through(again) == said.replace(KEY.encode(), b"[redacted]")


def test_a_json_answer_is_recorded_as_such(tmp_path: Path) -> None:
    tee = Tee(Head(b'{"data": [1.5]}', kind="application/json"), Recordings(tmp_path), "o", "d")
    read_through(tee)
    tee.finish(None)
    entry = TapeEntry.model_validate_json((tmp_path / "o.jsonl").read_text())
    assert (entry.response, entry.events) == ({"data": [1.5]}, None)


def test_an_answer_that_broke_off_is_no_recording(tmp_path: Path) -> None:
    tee = Tee(Head(chunks(delta(content="half"), done=False)), Recordings(tmp_path), "o", "d")
    asyncio.run(tee.read_chunk())
    tee.finish(None)
    assert not (tmp_path / "o.jsonl").exists()


def cassette(stage: Stage, *entries: TapeEntry, apis: Any = None) -> None:
    """Publish a policy whose `gpt` plays these, and start the gateway."""
    provider = Provider(kind="cassette", tape=entries, apis=apis)
    model = Model(provider="tape", id="gpt-x", price=PRICE)
    stage.publish(policy(providers={"tape": provider}, models={"gpt": model}))
    stage.issue()
    stage.start()


def events_of(stream: bytes) -> tuple[str, ...]:
    lines = stream.decode().splitlines()
    return tuple(line[6:] for line in lines if line.startswith("data: "))


def test_a_cassette_answers_the_official_client_and_refuses_what_it_does_not_know(
    stage: Stage,
) -> None:
    asked = {"model": "gpt-x", "messages": [{"role": "user", "content": "hello"}]}
    entry = TapeEntry(request=digest("chat", asked), events=events_of(openai_text("Taped.")))
    cassette(stage, entry)
    with openai.OpenAI(base_url=stage.ready["url"] + "/v1", api_key="token-of-run-1") as sdk:
        messages: Any = [{"role": "user", "content": "hello"}]
        streamed = sdk.chat.completions.create(model="gpt", messages=messages, stream=True)
        said = "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)
        assert said == "Taped."
        whole = sdk.chat.completions.create(model="gpt", messages=messages)
        assert whole.choices[0].message.content == "Taped."
        with pytest.raises(openai.BadRequestError, match="has no recording"):
            sdk.chat.completions.create(model="gpt", messages=[*messages, *messages])


def test_a_cassette_that_speaks_one_api_is_translated_to(stage: Stage) -> None:
    asked = {
        "model": "gpt-x",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    }
    events = events_of(anthropic_text("Taped."))
    cassette(stage, TapeEntry(request=digest("messages", asked), events=events), apis=("messages",))
    with openai.OpenAI(base_url=stage.ready["url"] + "/v1", api_key="token-of-run-1") as sdk:
        said = sdk.responses.create(model="gpt", input="hello")
    assert said.output_text == "Taped."


# --- the cross pairs, with the official clients and a provider on a real port


def test_anthropics_client_streams_from_a_chat_server(recording: Stage, fake: FakeProvider) -> None:
    recording.start(FAKE_KEY=KEY)
    fake.plan.put(openai_tool("look", '{"a"', ": 1}"))
    tool: Any = {"name": "look", "input_schema": {"type": "object"}}
    with (
        anthropic.Anthropic(base_url=recording.ready["url"], api_key="token-of-run-1") as sdk,
        sdk.messages.stream(
            model="gpt",
            max_tokens=50,
            messages=[{"role": "user", "content": "hi"}],
            tools=[tool],
            extra_headers={"anthropic-beta": "x"},
        ) as stream,
    ):
        final = stream.get_final_message()
    assert final.content[-1].input == {"a": 1}
    assert final.stop_reason == "tool_use"


def test_openais_client_gets_a_response_from_anthropic(
    recording: Stage, fake: FakeProvider
) -> None:
    recording.start(FAKE_KEY=KEY)
    usage = {
        "input_tokens": 5,
        "cache_creation_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0},
    }
    whole = [json.loads(data) for data in events_of(anthropic_text("Hi!"))]
    whole[0]["message"]["usage"] = usage
    fake.plan.put(sse(*whole))
    with openai.OpenAI(base_url=recording.ready["url"] + "/v1", api_key="token-of-run-1") as sdk:
        said = sdk.responses.create(model="claude", input="hello", max_output_tokens=77)
    assert said.output_text == "Hi!"
    assert said.usage is not None
    assert said.usage.input_tokens == 105, "what was written to the cache is input too"
    assert fake.requests[0][2]["max_tokens"] == 77


def test_embeddings_of_a_server_that_knows_no_base64(recording: Stage, fake: FakeProvider) -> None:
    recording.start(FAKE_KEY=KEY)
    document = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}],
        "model": "gpt-x",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    fake.plan.put(lambda handler: handler.say(200, json.dumps(document).encode()))
    with openai.OpenAI(base_url=recording.ready["url"] + "/v1", api_key="token-of-run-1") as sdk:
        found = sdk.embeddings.create(model="gpt", input="hello", encoding_format="float")
    assert found.data[0].embedding == [0.5, -0.25]
    (row,) = recording.rows()
    assert row["cost_nano"] == 2 * 10


def test_a_count_is_asked_of_a_provider_that_counts(recording: Stage, fake: FakeProvider) -> None:
    recording.start(FAKE_KEY=KEY)
    fake.plan.put(lambda handler: handler.say(200, b'{"input_tokens": 4321}'))
    with anthropic.Anthropic(base_url=recording.ready["url"], api_key="token-of-run-1") as sdk:
        messages: Any = [{"role": "user", "content": "hello"}]
        assert sdk.messages.count_tokens(model="claude", messages=messages).input_tokens == 4321
        path, headers, body = fake.requests[0]
        assert path == "/v1/messages/count_tokens"
        assert headers["x-api-key"] == KEY
        assert body["model"] == "claude-x"
        assert "max_tokens" not in body
        fake.plan.put(404)
        assert 0 < sdk.messages.count_tokens(model="claude", messages=messages).input_tokens < 30


def test_the_betas_that_an_anthropic_client_names_are_forwarded(
    recording: Stage, fake: FakeProvider
) -> None:
    recording.start(FAKE_KEY=KEY)
    with anthropic.Anthropic(base_url=recording.ready["url"], api_key="token-of-run-1") as sdk:
        sdk.beta.messages.create(
            model="claude",
            max_tokens=9,
            messages=[{"role": "user", "content": "hi"}],
            betas=["context-management-2025-06-27"],
            context_management={"edits": []},
        )
    _, headers, body = fake.requests[0]
    assert headers["anthropic-beta"] == "context-management-2025-06-27"
    assert body["context_management"] == {"edits": []}
    message = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    refused = recording.post("/v1/messages", message, **{"anthropic-beta": "a;b"})
    assert (refused.status, refused.code) == (400, "invalid_request")


def test_what_was_recorded_of_a_provider_is_played_instead_of_it(
    fake: FakeProvider, tmp_path: Path
) -> None:
    where = {
        "o": Provider(kind="openai", base_url=f"{fake.url}/v1", key=REF),
        "a": Provider(kind="anthropic", base_url=fake.url, key=REF),
    }
    body = {
        "model": "m",
        "max_tokens": 9,
        "stream": True,
        "messages": [{"role": "user", "content": "hello"}],
    }
    asked = Asked.read("messages", json.dumps(body).encode())

    async def call(provider: Provider, name: str, upstream: Upstream) -> bytes:
        where = Target("m", Model(provider=name, id="x"), name, provider)
        told = serving.Serving(
            upstream, where, asked, 9, {}, Frame(CallKey.parse("run-1/1/0"), "m", 1)
        )
        pieces = [piece async for piece in serving.stream(told)]
        return b"".join(p.tail if isinstance(p, End) else p.data for p in pieces)

    async def record_and_play() -> None:
        client = build_client()
        recorder = Recordings(tmp_path)
        upstream = Upstream(client, Keyring({"K": KEY}), recorder)
        fake.plan.put(anthropic_text(f"native {KEY}"))
        said = {"a": await call(where["a"], "a", upstream)}
        fake.plan.put(openai_text(f"translated {KEY}"))
        said["o"] = await call(where["o"], "o", upstream)
        await client.close()
        for name, apis in (("a", None), ("o", ("chat",))):
            lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
            entries = tuple(TapeEntry.model_validate_json(line) for line in lines)
            cassette = Provider(kind="cassette", tape=entries, apis=apis)
            nothing = Upstream(client, Keyring({}))
            played = await call(cassette, name, nothing)
            assert events_of(played) == events_of(said[name])
            assert b"[redacted]" in played

    asyncio.run(record_and_play())
    assert len(fake.requests) == 2
