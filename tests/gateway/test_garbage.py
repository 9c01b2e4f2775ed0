"""Bad input from either side: a clear refusal or failure, never another exception."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.policy import Provider, TapeEntry
from gateway.pricing import Usage
from gateway.providers import anthropic, openai, responses, tape, translated
from gateway.providers.conversation import (
    Done,
    ModelRequest,
    Reply,
    Stop,
    TextDelta,
    Thinking,
    ToolDelta,
    ToolStart,
    ToolUse,
    assemble,
    estimate_input,
)
from gateway.providers.counting import typical_input
from gateway.providers.dialects import anthropic as messages_dialect
from gateway.providers.dialects import embeddings as embeddings_dialect
from gateway.providers.dialects import fields
from gateway.providers.dialects import openai as chat_dialect
from gateway.providers.dialects import responses as responses_dialect
from gateway.providers.embeddings import read_answer
from gateway.providers.upstream import MAX_LINE
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from tests.gateway.spoken import CLAUDE, LOCAL, OPENAI, all_of, answer, chunks, delta
from tests.gateway.stage import anthropic_tool, openai_tool
from tests.gateway.test_translation import ITEMS, PDF, PNG, SCHEMA, TOOLS

READS: dict[str, Callable[..., Any]] = {
    "chat": openai.events,
    "messages": anthropic.events,
    "responses": responses.events,
}

FRAME: dict[str, Any] = {"model": "m", "identity": "1", "seconds": 1}

# --- providers


def whole_stream(api: str) -> bytes:
    """A stream of each API that thinks, speaks and calls a tool."""
    if api == "chat":
        return openai_tool("f", '{"ä"', ": 1}")
    if api == "messages":
        return anthropic_tool("f", '{"ä"', ": 1}")
    reply = Reply(
        "I ä.",
        (ToolUse("c", "f", "{}"),),
        Stop.TOOL,
        Usage(3, 2),
        (Thinking("hm", "openai:rs_1:SECRET"),),
    )
    writer = responses_dialect.Writer(**FRAME, with_usage=True)
    return b"".join(map(writer.write, reply.events()))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def mutated(document: Any, data: st.DataObject) -> Any:
    """The document with one value, somewhere inside it, replaced or taken away."""
    found = copy.deepcopy(document)
    holder: Any = [found]
    key: Any = 0
    for _ in range(data.draw(st.integers(1, 9))):
        inner = holder[key]
        if isinstance(inner, dict) and inner:
            holder, key = inner, data.draw(st.sampled_from(sorted(inner)))
        elif isinstance(inner, list) and inner:
            holder, key = inner, data.draw(st.integers(0, len(inner) - 1))
        else:
            break
    if isinstance(holder, dict) and data.draw(st.booleans()):
        del holder[key]
    else:
        holder[key] = data.draw(JSON)
    return found


def read_all(api: str, *pieces: bytes, kind: str = "text/event-stream") -> None:
    """Read an answer; only a Failure may come of it, or a stream that can be assembled."""
    try:
        events = all_of(READS[api](answer(*pieces, kind=kind)))
    except Failure:
        return
    reply = assemble(events)
    json.dumps(reply.to_json(), ensure_ascii=False).encode()
    if reply.usage is not None:
        usage = reply.usage
        assert 0 <= usage.cached + usage.cache_write + usage.audio_input <= usage.input
        assert 0 <= usage.reasoning <= usage.output


@pytest.mark.parametrize("api", sorted(READS))
@given(pieces=st.lists(st.binary(max_size=60), max_size=6))
def test_arbitrary_bytes_of_a_provider_are_a_failure(api: str, pieces: list[bytes]) -> None:
    read_all(api, *pieces)
    read_all(api, *pieces, kind="application/json")


@pytest.mark.parametrize("api", sorted(READS))
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_arbitrary_json_events_of_a_provider_are_a_failure(api: str, data: st.DataObject) -> None:
    whole = whole_stream(api)
    lines = [line[6:] for line in whole.decode().splitlines() if line.startswith("data: ")]
    events: list[Any] = [json.loads(line) for line in lines if line != "[DONE]"]
    number = data.draw(st.integers(0, len(events) - 1))
    events[number] = mutated(events[number], data)
    read_all(api, chunks(*events, done=data.draw(st.booleans())))


@pytest.mark.parametrize("api", sorted(READS))
@given(cut=st.integers(0, 2000), size=st.integers(1, 400))
def test_a_stream_cut_anywhere_is_a_failure_or_whole(api: str, cut: int, size: int) -> None:
    whole = whole_stream(api)
    kept = whole[:cut]
    read_all(api, *(kept[at : at + size] for at in range(0, len(kept), size)))


@pytest.mark.parametrize(
    ("said", "kind", "why"),
    [
        (b"<html><h1>502</h1></html>", "text/html", "HTML"),
        (b"data: {nonsense\n\n", "text/event-stream", "not JSON"),
        (b"data: [1]\n\n", "text/event-stream", "not an object"),
        (b'data: {"a": "\\ud800"}\n\n', "text/event-stream", "not JSON"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "text/event-stream", "not JSON"),
        (b"", "text/event-stream", "broke off"),
        (b"\xff\xfe\x00", "text/event-stream", "broke off"),
        (chunks(delta(content="half"), done=False), "text/event-stream", "broke off"),
        (chunks({"error": {"message": "x"}}), "text/event-stream", "failed while"),
    ],
)
def test_garbage_is_named(said: bytes, kind: str, why: str) -> None:
    with pytest.raises(Failure, match=why) as failed:
        all_of(openai.events(answer(said, kind=kind)))
    assert failed.value.done, "the work may have been done, so it is charged"


def test_a_gigantic_event_is_a_failure_before_it_fills_the_memory() -> None:
    piece = b"x" * (1 << 20)
    endless = [b"data: ", *[piece] * (2 + MAX_LINE // len(piece))]
    source = answer(*endless)
    with pytest.raises(Failure, match="too long"):
        all_of(openai.events(source))
    many = [b"data: " + piece + b"\n"] * (2 + MAX_LINE // len(piece))
    with pytest.raises(Failure, match="too large"):
        all_of(openai.events(answer(*many)))


@given(data=st.data())
def test_garbage_instead_of_vectors_is_a_failure(data: st.DataObject) -> None:
    good = {"data": [{"index": 0, "embedding": [0.5, 1.0]}, {"index": 1, "embedding": "AAAAAA=="}]}
    try:
        reply = read_answer(mutated(good, data), 2, "p")
    except Failure:
        return
    assert len(reply.vectors) == 2


def test_pieces_of_two_calls_that_are_mixed_up_are_a_failure() -> None:
    def call(index: int, text: str, **more: Any) -> dict[str, Any]:
        function = {"arguments": text, **({"name": "f"} if more else {})}
        return delta(tool_calls=[{"index": index, "function": function, **more}])

    said = chunks(call(0, "{", id="a"), call(1, "{", id="b"), call(0, "}"), delta("tool_calls"))
    listed = tuple(line[6:] for line in said.decode().split("\n\n") if line)
    wanted = tape.digest("chat", openai.body(ModelRequest("m", ()), LOCAL, official=False))
    entry = TapeEntry(request=wanted, events=listed)
    cassette = replace(LOCAL, provider=Provider(kind="cassette", apis=("chat",), tape=(entry,)))
    with pytest.raises(Failure, match="mixed up"):
        all_of(translated.events(None, cassette, ModelRequest("m", ())))  # type: ignore[arg-type]


# --- what other servers do differently, and is no garbage


def call(**about: Any) -> dict[str, Any]:
    return delta(tool_calls=[about])


@pytest.mark.parametrize(
    "said",
    [
        chunks(
            call(id="a", function={"name": "f", "arguments": '{"x": 1}'}),
            call(id="b", function={"name": "g", "arguments": "{}"}),
            delta("tool_calls"),
        ),
        chunks(
            call(function={"name": "f", "arguments": {"x": 1}}),
            call(function={"name": "g", "arguments": {}}),
            delta("stop"),
            done=False,
        ),
        chunks(
            call(index=0, id="a", function={"name": "f", "arguments": '{"x"'}),
            call(index=0, function={"arguments": ": 1}"}),
            call(index=0, id="b", function={"name": "g", "arguments": "{}"}),
            delta("tool_calls"),
        ),
        chunks(
            call(index=0, id="a", function={"name": "f", "arguments": '{"x"'}),
            call(index=0, id="a", function={"name": "f", "arguments": ": 1}"}),
            call(index=1, id="b", function={"name": "g"}),
            delta("tool_calls"),
        ),
    ],
    ids=["no index", "neither index nor id, arguments as an object", "one index", "repeated id"],
)
def test_calls_are_told_apart_however_a_server_numbers_them(said: bytes) -> None:
    reply = assemble(all_of(openai.events(answer(said), turn=3)))
    assert [(t.name, json.loads(t.arguments)) for t in reply.tools] == [("f", {"x": 1}), ("g", {})]
    assert len({t.id for t in reply.tools}) == 2
    assert reply.stop is Stop.TOOL
    assert reply.usage is None


def test_reasoning_of_a_local_server_is_kept_apart_from_what_it_says() -> None:
    said = chunks(
        delta(reasoning_content="let me"), delta(reasoning=" see"), delta("stop", content="4")
    )
    reply = assemble(all_of(openai.events(answer(said))))
    assert (reply.thinking[0].text, reply.text) == ("let me see", "4")
    frame: dict[str, Any] = {"model": "m", "identity": "1", "seconds": 1}
    block, text = messages_dialect.answer(reply, **frame)["content"]
    assert (block["type"], text["text"]) == ("thinking", "4")
    turns = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": [block, text]}]
    body = {"model": "m", "max_tokens": 9, "messages": [*turns, turns[0]]}
    request = messages_dialect.read(body)
    sent = openai.body(request, LOCAL, official=False)
    assert sent["messages"][1]["reasoning_content"] == "let me see"
    assert anthropic.body(request, CLAUDE)["messages"][1]["content"] == [text]


def test_a_server_that_does_not_stream_is_read_all_the_same() -> None:
    message = {"role": "assistant", "content": "whole"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    document = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    said = answer(json.dumps(document).encode(), kind="application/json")
    assert assemble(all_of(openai.events(said))) == Reply("whole", (), Stop.END, Usage(3, 1))


# --- clients

IMAGE = {"type": "image_url", "image_url": {"url": PNG}}
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": [{"type": "text", "text": "see"}, IMAGE]},
        {"role": "user", "content": [{"type": "file", "file": {"file_data": PDF}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "R"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
    "max_tokens": 9,
    "temperature": 0.5,
    "stop": ["x"],
    "n": 1,
    "seed": 3,
    "parallel_tool_calls": True,
    "reasoning_effort": "low",
    "user": "u",
    "stream_options": {"include_usage": True},
}
MESSAGES: dict[str, Any] = {
    "model": "m",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                },
                {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "R"}]},
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "tool", "name": "f"},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["x"],
    "top_k": 3,
}
RESPONSES: dict[str, Any] = {
    "model": "m",
    "instructions": "S",
    "input": ITEMS,
    "tools": TOOLS,
    "tool_choice": {"type": "function", "name": "shell"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
    "reasoning": {"effort": "low"},
    "max_output_tokens": 9,
    "parallel_tool_calls": False,
}
EMBEDDINGS: dict[str, Any] = {"model": "m", "input": ["a", [1, 2]], "dimensions": 4, "user": "u"}
CLIENTS = {
    "chat": (chat_dialect, CHAT),
    "messages": (messages_dialect, MESSAGES),
    "responses": (responses_dialect, RESPONSES),
    "embeddings": (embeddings_dialect, EMBEDDINGS),
}


def read_or_refused(read: Callable[[], Any]) -> Any:
    """What was read, or the refusal. Anything else that is raised fails the test."""
    try:
        return read()
    except Refusal as refusal:
        return refusal


@pytest.mark.parametrize("api", sorted(CLIENTS))
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=300)
def test_any_request_is_read_or_refused(api: str, data: st.DataObject) -> None:
    dialect, good = CLIENTS[api]
    body = mutated(good, data)
    if data.draw(st.booleans()):
        body = mutated(body, data) if isinstance(body, dict) else body
    request = read_or_refused(lambda: dialect.read(fields.document(json.dumps(body).encode())))
    if isinstance(request, Refusal):
        assert request.code is Code.INVALID_REQUEST
        assert "`" in request.message or "body" in request.message, "it names the field"
        return
    if not isinstance(request, ModelRequest):
        return
    assert estimate_input(request) >= typical_input(request) // 3 > 0
    for sent in (
        openai.body(request, LOCAL, official=False),
        openai.body(request, LOCAL, official=True),
        anthropic.body(request, CLAUDE),
        responses.body(request, OPENAI),
    ):
        json.dumps(sent, allow_nan=False, ensure_ascii=False).encode()


@given(st.binary(max_size=60))
def test_arbitrary_bytes_of_a_client_are_refused(body: bytes) -> None:
    found = read_or_refused(lambda: fields.document(body))
    assert isinstance(found, dict) or found.code is Code.INVALID_REQUEST


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"a": ' * 100_000,
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b"\xff",
        b"{} {}",
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_json_that_only_python_reads_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        fields.document(body)
    assert refused.value.code is Code.INVALID_REQUEST


# --- round trips

WORDS = st.text(alphabet='ab ä{}"\n', min_size=1, max_size=12)
REPLIES = st.builds(
    Reply,
    WORDS,
    st.lists(
        st.builds(
            ToolUse,
            st.uuids().map(lambda u: f"call_{u.hex[:8]}"),
            st.sampled_from(["f", "g"]),
            st.dictionaries(WORDS, WORDS, max_size=2).map(json.dumps),
        ),
        max_size=3,
        unique_by=lambda tool: tool.id,
    ).map(tuple),
    st.just(Stop.END),
    st.just(Usage(7, 3, cached=2, reasoning=1, cache_write=1)),
)


@pytest.mark.parametrize("api", sorted(READS))
@given(reply=REPLIES)
def test_what_a_dialect_writes_its_provider_reads_back(api: str, reply: Reply) -> None:
    dialect = CLIENTS[api][0]
    writer = dialect.Writer(**FRAME, with_usage=True)
    *events, last = reply.events()
    if reply.tools:
        last = Done(Stop.TOOL, reply.usage)
    written = b"".join(map(writer.write, [*events, last])) + writer.end()
    got = assemble(all_of(READS[api](answer(written))))
    assert (got.text, got.tools) == (reply.text, reply.tools)
    assert got.usage is not None
    assert (got.usage.input, got.usage.output, got.usage.cached) == (7, 3, 2)
    assert Reply.from_json(json.loads(json.dumps(got.to_json()))) == got


@given(reply=REPLIES)
def test_an_answer_is_read_back_from_the_next_request(reply: Reply) -> None:
    said = chat_dialect.answer(reply, **FRAME)["choices"][0]["message"]
    read = chat_dialect.read({"model": "m", "messages": [said]}).messages[0].parts
    block = messages_dialect.answer(reply, **FRAME)["content"]
    body = {"model": "m", "messages": [{"role": "assistant", "content": block}]}
    again = messages_dialect.read(body).messages[0].parts
    items = responses_dialect.answer(reply, **FRAME)["output"]
    third = responses_dialect.read({"model": "m", "input": items}).messages
    assert read == tuple(part for message in third for part in message.parts)
    assert [type(part) for part in again] == [type(part) for part in read]
    for one, other in zip(read, again, strict=True):
        if isinstance(one, ToolUse) and isinstance(other, ToolUse):
            assert (one.id, one.name) == (other.id, other.name)
            assert json.loads(one.arguments) == json.loads(other.arguments)
        else:
            assert one == other


def test_a_tool_call_without_arguments_is_an_empty_object() -> None:
    reply = assemble([ToolStart(0, "a", "f"), ToolDelta(0, ""), Done(Stop.TOOL, None)])
    assert reply.tools[0].arguments == "{}"
    assert assemble([TextDelta("x"), Done(Stop.END, None)]).tools == ()
