"""Requests and answers that nobody would write: whatever comes, the gateway says what is wrong in
the client's dialect, is not at fault itself, and books what may have been spent."""

from __future__ import annotations

import copy
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import calls
from gateway.policy import (
    BudgetRule,
    Model,
    Policy,
    Price,
    Provider,
    Retry,
    ToolClass,
    ToolServer,
    VirtualModel,
    Window,
)
from gateway.refusals import STATUS
from gateway.values import NanoUSD
from tests.gateway.stage import (
    SCRIPT,
    FakeProvider,
    Stage,
    ceiling,
    grants,
    policy,
    principal,
    sse,
)

PRICE = Price(input=NanoUSD(1), output=NanoUSD(10), cached_input=NanoUSD(0))
BUDGET = BudgetRule(name="day", limit=NanoUSD(10**15), window=Window.DAY)
HELLO = {"role": "user", "content": "hello"}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}},
}
VALID: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        {
            "model": "fast",
            "messages": [
                {"role": "system", "content": "be kind"},
                {"role": "user", "content": [{"type": "text", "text": "weather in Rome"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "sunny in Rome"},
            ],
            "tools": [TOOL],
            "tool_choice": "auto",
            "max_tokens": 50,
            "temperature": 0.5,
            "stop": ["x"],
            "stream": False,
            "stream_options": {"include_usage": True},
            "n": 1,
        }
    ],
    "/v1/messages": [
        {
            "model": "fast",
            "max_tokens": 50,
            "system": [{"type": "text", "text": "be kind"}],
            "messages": [
                HELLO,
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "t", "name": "weather", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t", "content": "sunny in Rome"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "AA"},
                        },
                    ],
                },
            ],
            "tools": [{"name": "weather", "description": "d", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "auto"},
            "stop_sequences": ["x"],
            "temperature": 1,
            "stream": False,
        }
    ],
    "/v1/responses": [
        {
            "model": "fast",
            "instructions": "be kind",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
                {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "sunny in Rome"},
            ],
            "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}}],
            "max_output_tokens": 50,
            "text": {"format": {"type": "text"}},
            "stream": False,
        },
        {"model": "fast", "input": "hello"},
    ],
    "/v1/embeddings": [{"model": "vector", "input": ["a", "b"], "encoding_format": "float"}],
    "/v1/messages/count_tokens": [{"model": "fast", "messages": [HELLO]}],
    "/mcp": [
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "effects__read", "arguments": {"text": "a"}},
        },
        {
            "jsonrpc": "2.0",
            "id": "a",
            "method": "initialize",
            "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {}},
        },
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"cursor": ""}},
    ],
}


class Raw(str):
    """Text that stands in a document as it is, whether it is JSON or not."""


def written(value: Any) -> bytes:
    """JSON, with what is `Raw` put in unread."""
    if isinstance(value, Raw):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict):
        return b"{" + b",".join(written(k) + b":" + written(v) for k, v in value.items()) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(written(v) for v in value) + b"]"
    return json.dumps(value).encode()


DEEP = 10_000
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            [], {}, [[]], [{}], {"a": {}}, [None], "", "\x00", "a\r\nb", "😀", " ",
            Raw(r'"\ud800"'), Raw(r'"\udc00\ud800"'), Raw(r'{"\ud800": "\ud800"}'),
            Raw("NaN"), Raw("-Infinity"), Raw("1e999"), Raw("-0"), Raw("1" * 5000), Raw("1.0"),
            Raw('{"a": 1, "a": 2}'), Raw("[" * DEEP + "]" * DEEP), Raw("[" * DEEP),
            Raw('{"a":' * DEEP + "1" + "}" * DEEP), Raw('"\udcff\udcfe"'), Raw('"\x01"'),
            Raw("'a'"), Raw("{,}"), Raw(""), Raw("tru"), Raw('"' + "a" * 1_000_000 + '"'),
            Raw("[" + "1," * 100_000 + "1]"), "data:image/png;base64,!!!", "https://x" * 100,
        ]
    ),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a document something can be changed."""
    yield path
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield from places(item, (*path, key))


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path, and a body that was valid before one to three things were done to it."""
    path = draw(st.sampled_from(sorted(VALID)))
    document: Any = copy.deepcopy(draw(st.sampled_from(VALID[path])))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(list(places(document))))
        if not at:
            if draw(st.integers(0, 9)) == 0:
                document = copy.deepcopy(draw(ODD))
            continue
        parent = document
        for step in at[:-1]:
            parent = parent[step]
        how = draw(st.sampled_from(["change", "change", "remove", "add", "twice"]))
        if how == "change":
            parent[at[-1]] = copy.deepcopy(draw(ODD))
        elif how == "remove":
            del parent[at[-1]]
        elif how == "add" and isinstance(parent, dict):
            parent[draw(st.text(max_size=5))] = copy.deepcopy(draw(ODD))
        elif how == "twice" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[at[-1]]))
        if not isinstance(document, dict | list):
            break
    body = written(document)
    if draw(st.integers(0, 19)) == 0:
        cut = draw(st.integers(0, min(len(body), 300)))
        body = body[:cut] + draw(st.binary(max_size=8)) + body[cut:]
    return path, body


def shape_of(path: str, status: int, kind: str, body: bytes) -> tuple[str, str]:
    """Whether an answer is one that clients of this path can read: (kind, code)."""
    if kind.startswith("text/event-stream"):
        assert status == 200
        return "stream", ""
    text = body.decode()  # strictly UTF-8

    def refuse(_: str) -> Any:
        raise AssertionError("NaN is no JSON")

    if status == 202:
        assert not body
        return "taken", ""
    document = json.loads(text, parse_constant=refuse)
    if path == "/mcp":
        assert document["jsonrpc"] == "2.0"
        if "error" in document:
            error = document["error"]
            assert isinstance(error["code"], int)
            return "error", str((error.get("data") or {}).get("code", error["code"]))
        return "answer", ""
    if status == 200:
        assert "error" not in document or document["error"] is None
        return "answer", ""
    if path.startswith("/v1/messages"):
        assert document["type"] == "error"
    error = document["error"]
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    return "error", error["code"]


def stage_policy(**changes: Any) -> Policy:
    values: dict[str, Any] = {
        "providers": {"script": Provider(kind="scripted", script=SCRIPT)},
        "models": {
            "fast": Model(provider="script", id="scripted", price=PRICE),
            "vector": Model(provider="script", id="scripted", price=PRICE),
        },
        "budgets": (BUDGET,),
        "servers": {
            "effects": ToolServer(
                url="http://127.0.0.1:9/mcp",
                tools={"read": ToolClass(access=("read",)), "write": ToolClass()},  # type: ignore[arg-type]
            )
        },
    }
    return policy(**{**values, **changes})


ALL = ("fast", "smart", "claude", "gpt", "second", "gone", "vector")


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: FakeProvider) -> Iterator[Stage]:
    """One process; tools are answered from a record, as those of an eval are."""
    with Stage(tmp_path_factory.mktemp("fuzz")) as stage:
        urls = {"base_url": f"{upstream.url}/v1", "timeout_seconds": 5}
        stage.publish(
            stage_policy(
                providers={
                    "script": Provider(kind="scripted", script=SCRIPT),
                    "openai": Provider(
                        kind="openai", apis=("chat", "responses", "embeddings"), **urls
                    ),
                    "anthropic": Provider(
                        kind="anthropic", base_url=upstream.url, timeout_seconds=5
                    ),
                },
                models={
                    "fast": Model(provider="script", id="scripted", price=PRICE),
                    "vector": Model(provider="script", id="scripted", price=PRICE),
                    "gpt": Model(provider="openai", id="g", price=PRICE),
                    "claude": Model(provider="anthropic", id="c", price=PRICE),
                },
                virtual_models={
                    "smart": VirtualModel(targets=("gpt",), retry=Retry(attempts=1)),
                    "second": VirtualModel(targets=("claude",), retry=Retry(attempts=1)),
                },
            ),
            {"triage": ceiling(models=ALL)},
        )
        from gateway.values import Purpose

        everything = grants(models=ALL)
        world = [{"tool": "effects.read", "args": {}, "result": "r"}]
        stage.issue(principal(purpose=Purpose.EVAL), everything, world)
        stage.issue(principal("run-2", occurrence="manual:2"), everything, token="token-of-run-2")
        yield stage.start()


class Client:
    """A connection that is kept."""

    def __init__(self, stage: Stage, token: str) -> None:
        self._stage = stage
        self._token = token
        self._line: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        if self._line is None:
            ready = self._stage.ready
            self._line = http.client.HTTPConnection(ready["host"], ready["port"], timeout=30)
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        self._line.request("POST", path, body, headers)
        response = self._line.getresponse()
        return response.status, response.headers["content-type"] or "", response.read()


FUZZ = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_what_is_made_from_is_valid(served: Stage) -> None:
    client = Client(served, "token-of-run-1")
    for path, documents in VALID.items():
        for document in documents:
            status, _, body = client.post(path, json.dumps(document).encode())
            if path == "/v1/embeddings":
                assert status in (200, 400), body  # the scripted provider has none
            else:
                assert status == 200, (path, body)


def test_whatever_a_client_sends_is_answered_or_refused_and_never_a_fault(served: Stage) -> None:
    client = Client(served, "token-of-run-1")

    @settings(FUZZ, max_examples=1500)
    @given(bodies())
    def fuzz(sent: tuple[str, bytes]) -> None:
        path, body = sent
        status, content_type, said = client.post(path, body)
        _, code = shape_of(path, status, content_type, said)
        assert status < 500, (path, body[:300], status, said[:300])
        assert code != "internal_error", (path, body[:300], said[:300])
        if path != "/mcp" and code:
            assert STATUS[code] == status  # type: ignore[index]
        assert b"Traceback" not in said
        assert b"token-of-run" not in said

    fuzz()
    assert not [row for row in served.rows() if row["state"] == "reserved"]
    log = [json.loads(line) for line in served.log.read_text().splitlines()]
    assert not [line for line in log if line["event"] == "fault" or "fault" in line]
    with served.database.transaction() as tx:
        assert calls.audit(tx, (BUDGET,)) == {}


def native(api: str, usage: Any) -> dict[str, Any]:
    """A whole answer in a provider's own dialect."""
    if api == "messages":
        text = [{"type": "text", "text": "Hi"}]
        return {"type": "message", "role": "assistant", "content": text, "usage": usage}
    if api == "responses":
        item = {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
        }
        return {"id": "r", "object": "response", "output": [item], "usage": usage}
    if api == "embeddings":
        return {"data": [{"embedding": [0.5], "index": 0}], "usage": usage}
    message = {"role": "assistant", "content": "Hi"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"choices": [choice], "usage": usage}


def native_stream(api: str, usage: Any) -> bytes:
    """The same as a stream."""
    if api == "messages":
        delta = {"type": "text_delta", "text": "Hi"}
        return sse(
            {"type": "message_start", "message": {"usage": usage}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
            {"type": "message_stop"},
        )
    if api == "responses":
        return sse(
            {"type": "response.created", "response": {}},
            {"type": "response.output_text.delta", "delta": "Hi", "output_index": 0},
            {"type": "response.completed", "response": native(api, usage)},
        )
    choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}
    stop = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return sse(
        {"choices": [choice]}, {"choices": [stop]}, {"choices": [], "usage": usage}, "[DONE]"
    )


NAMES = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
COUNTS = st.one_of(
    st.integers(0, 100),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
    st.sampled_from(["12", "", [], {}, True, False, 2**63, 2**63 - 1, 10**12, -1, 10**400]),
)
USAGES = st.one_of(
    st.none(),
    st.sampled_from([{}, [], "12", 7, True, [{"prompt_tokens": 1}]]),
    st.fixed_dictionaries(
        dict.fromkeys(NAMES, COUNTS),
        optional={
            "prompt_tokens_details": st.one_of(
                st.none(), st.fixed_dictionaries({"cached_tokens": COUNTS, "audio_tokens": COUNTS})
            ),
            "cache_read_input_tokens": COUNTS,
            "cache_creation_input_tokens": COUNTS,
        },
    ),
)
GARBAGE = st.sampled_from(
    [
        b"", b"{", b"null", b"[]", b'"text"', b"<html><body>502 Bad Gateway</body></html>",
        b"\xff\xfe\x00", b"data: {", b"data: null\n\n", b"data: []\n\n", b"data: [DONE]\n\n",
        b"data: \xff\xff\n\n", b": comment\n\n", b"event: x\n\n", b"\n\n\n\n", b"data:\n\n" * 100,
        b'data: {"choices": null}\n\n', b'data: {"choices": [null]}\n\n',
        b'data: {"choices": [{"delta": null}]}\n\n', b'data: {"choices": [{"delta": 1}]}\n\n',
        b'data: {"choices": [{"index": "a", "delta": {"content": 1}}]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [null]}}]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [{"index": 1e9}]}}]}\n\n',
        b'data: {"error": {"message": "overloaded"}}\n\n', b'{"error": "x"}', b'{"error": null}',
        b'data: {"type": "error"}\n\n', b'data: {"type": "message_delta"}\n\n',
        b'data: {"type": "content_block_delta", "index": 9, "delta": null}\n\n',
        b'data: {"type": "message_start", "message": null}\n\n',
        b'data: {"type": "response.completed"}\n\n', b'data: {"type": "response.failed"}\n\n',
        b'data: {"type": "response.completed", "response": 1}\n\n',
        b"data: " + b"[" * DEEP + b"\n\n", b'{"choices":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"choices": [{"message": {"content": "\\ud800"}}]}',
        b'{"content": [{"type": "text", "text": "\\ud800"}]}',
        b'data: {"choices": [{"delta": {"content": "\\ud800"}}]}\n\n',
        b'{"choices": [], "content": [], "output": [], "data": []}',
        b'{"choices": [{}], "content": [{}], "output": [{}], "data": [{}]}',
        b'{"choices": [{"message": {"content": [1], "tool_calls": [{}]}}]}',
        b"data: " + b"a" * 9_000_000,
    ]
)  # fmt: skip
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [HELLO], "max_tokens": 20}),
    "messages": ("/v1/messages", {"messages": [HELLO], "max_tokens": 20}),
    "responses": ("/v1/responses", {"input": "hello", "max_output_tokens": 20}),
    "embeddings": ("/v1/embeddings", {"input": "hello"}),
}


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, str, int]:
    """What a provider says: bytes, content type, status. Mostly an answer of some dialect with
    odd usage, cut or with something put into it."""
    kind = draw(st.sampled_from(["usage", "usage", "garbage", "cut", "insert"]))
    streams = draw(st.booleans())
    api = draw(st.sampled_from(sorted(ASKED)))
    said = (
        native_stream(api, draw(USAGES))
        if streams
        else json.dumps(native(api, draw(USAGES))).encode()
    )
    if kind == "garbage":
        said = draw(GARBAGE)
    elif kind == "cut":
        said = said[: draw(st.integers(0, len(said)))]
    elif kind == "insert":
        at = draw(st.integers(0, len(said)))
        said = said[:at] + draw(GARBAGE) + said[at:]
    event_stream = streams if draw(st.integers(0, 9)) else not streams
    status = draw(st.sampled_from([200] * 12 + [201, 204, 400, 401, 429, 500, 529]))
    return said, "text/event-stream" if event_stream else "application/json", status


def test_whatever_a_provider_says_is_no_fault_of_the_gateway_and_money_stays_sound(
    served: Stage, upstream: FakeProvider
) -> None:
    client = Client(served, "token-of-run-2")
    bound = 10**9 * PRICE.output * 2

    @settings(FUZZ, max_examples=1200)
    @given(
        answers(),
        st.sampled_from(sorted(ASKED)),
        st.sampled_from(["smart", "second"]),
        st.booleans(),
    )
    def fuzz(said: tuple[bytes, str, int], api: str, model: str, streams: bool) -> None:
        answer, content_type, status = said

        def reply(handler: Any) -> None:
            # In one piece: a head by itself would wait for its acknowledgement.
            length = b"" if status == 204 else b"content-length: %d\r\n" % len(answer)
            head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\n".encode()
            handler.wfile.write(head + length + b"\r\n" + (b"" if status == 204 else answer))

        path, rest = ASKED[api]
        for _ in range(3):
            upstream.plan.put(reply)
        body = {"model": model, "stream": streams, **rest}
        if api == "embeddings":
            del body["stream"]
        got, media, text = client.post(path, json.dumps(body).encode())
        kind, code = shape_of(path, got, media, text)
        where = (answer[:400], content_type, status, api, model, streams, text[:400])
        assert b"internal_error" not in text, where
        assert b"Traceback" not in text, where
        if kind == "error":
            assert STATUS[code] == got, where  # type: ignore[index]
        elif kind == "stream":
            assert text.endswith(b"\n\n"), where
        while not upstream.plan.empty():
            upstream.plan.get()

    fuzz()
    rows = [row for row in served.rows() if row["run"] == "run-2"]
    assert rows
    for row in rows:
        assert row["state"] in ("settled", "released", "unknown")
        assert 0 <= row["cost_nano"] <= bound, row
        if row["state"] == "settled":
            assert 0 <= row["cached_tokens"] <= row["input_tokens"]
            if row["error"]:
                assert row["cost_nano"] <= row["reserved_nano"], "nobody said that it cost more"
        if row["state"] == "unknown":
            assert row["cost_nano"] == row["reserved_nano"]
    with served.database.transaction() as tx:
        assert calls.audit(tx, (BUDGET,)) == {}
    log = [json.loads(line) for line in served.log.read_text().splitlines()]
    assert not [line for line in log if line["event"] == "fault" or "fault" in line]
