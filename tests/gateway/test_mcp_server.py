"""The MCP face without its I/O: eras, headers, origins, pages, and what strangers may send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.mcp import finder, server
from gateway.mcp.finder import Listing
from gateway.mcp.server import ArtifactList, ArtifactRead, Exchange, Reply, ToolCall
from gateway.refusals import Code, Refusal

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
VERSION = "io.modelcontextprotocol/protocolVersion"
JSON = (b"content-type", b"application/json")


def tools(*names: str) -> Listing:
    return Listing(
        tuple(
            {"name": name, "description": "", "inputSchema": {"type": "object"}}
            for name in sorted(names)
        )
    )


def ask(
    method: str,
    params: dict[str, Any] | None = None,
    *,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    listing: Listing | None = None,
    **more: Any,
) -> Any:
    """What a legacy client gets."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}, **more}
    return answer(body, (JSON, *headers), listing)


def modern(
    method: str,
    params: dict[str, Any] | None = None,
    *,
    version: str = "2026-07-28",
    drop: tuple[bytes, ...] = (),
    add: tuple[tuple[bytes, bytes], ...] = (),
    listing: Listing | None = None,
) -> Any:
    """What a client of 2026-07-28 gets; `drop` and `add` spoil its headers."""
    meta = {VERSION: version, CAPABILITIES: {}}
    given_ = {"_meta": meta, **(params or {})}
    headers = [(b"MCP-Protocol-Version", version.encode()), (b"Mcp-Method", method.encode()), JSON]
    name = given_.get("name") or given_.get("uri")
    if name:
        headers.append((b"Mcp-Name", str(name).encode()))
    kept = [pair for pair in headers if pair[0] not in drop]
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": given_}
    return answer(body, (*kept, *add), listing)


def answer(body: Any, headers: Any, listing: Listing | None = None) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    exchange = server.read("POST", headers, data)
    if isinstance(exchange, Reply):
        return exchange
    return server.respond(exchange, listing or tools("a__b"))


def document(reply: Any) -> Any:
    assert isinstance(reply, Reply)
    return json.loads(reply.body)


def code(reply: Any) -> tuple[int, int]:
    return reply.status, document(reply)["error"]["code"]


# --- the eras


def test_a_stateless_request_is_answered_as_its_revision_says() -> None:
    found = document(modern("tools/list"))["result"]
    assert found["resultType"] == "complete"
    assert found["ttlMs"] >= 0
    assert found["cacheScope"] == "private"
    assert found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "interlock-gateway"
    assert [tool["name"] for tool in found["tools"]] == ["a__b"]


def test_discovery_names_every_revision_spoken() -> None:
    found = document(modern("server/discover"))["result"]
    assert found["supportedVersions"][:2] == ["2026-07-28", "2025-11-25"]
    assert set(found["capabilities"]) == {"tools", "resources"}


def test_legacy_answers_have_nothing_a_legacy_client_does_not_know() -> None:
    assert set(document(ask("tools/list"))["result"]) == {"tools"}
    opened = document(ask("initialize", {"protocolVersion": "2025-06-18"}))["result"]
    assert opened["protocolVersion"] == "2025-06-18"
    assert document(ask("ping"))["result"] == {}


def test_what_one_era_has_the_other_has_not() -> None:
    for method in ("initialize", "ping", "resources/subscribe", "nonsense"):
        assert code(modern(method)) == (404, -32601)
    for method in ("server/discover", "nonsense"):
        assert code(ask(method)) == (200, -32601)


def test_an_unknown_revision_is_told_which_are_known() -> None:
    reply = modern("tools/list", version="2031-01-01")
    assert code(reply) == (400, -32022)
    data = document(reply)["error"]["data"]
    assert data["requested"] == "2031-01-01"
    assert "2026-07-28" in data["supported"]
    assert code(ask("tools/list", headers=((b"mcp-protocol-version", b"1999-01-01"),))) == (
        400,
        -32022,
    )


@pytest.mark.parametrize("header", [b"MCP-Protocol-Version", b"Mcp-Method", b"Mcp-Name"])
def test_a_stateless_request_without_a_mirrored_header_is_refused(header: bytes) -> None:
    assert code(modern("tools/call", {"name": "a__b"}, drop=(header,))) == (400, -32020)
    other = (header, b"something-else")
    assert code(modern("tools/call", {"name": "a__b"}, drop=(header,), add=(other,))) == (
        400,
        -32020,
    )


@pytest.mark.parametrize("header", [b"MCP-Protocol-Version", b"Mcp-Method", b"Mcp-Name"])
def test_a_mirrored_header_that_comes_twice_is_refused(header: bytes) -> None:
    right = {b"MCP-Protocol-Version": b"2026-07-28", b"Mcp-Method": b"tools/call"}
    twice = ((header, right.get(header, b"a__b")),)
    assert code(modern("tools/call", {"name": "a__b"}, add=twice)) == (400, -32020)


def test_a_name_in_base64_is_read_before_it_is_compared() -> None:
    name = {"name": "ä__b"}
    right = ((b"Mcp-Name", b"=?base64?w6RfX2I=?="),)
    assert isinstance(modern("tools/call", name, drop=(b"Mcp-Name",), add=right), ToolCall)
    for wrong in (b"=?base64?w6RfX2K=?=", b"=?base64?!?=", b"=?base64?YV9fYg==?="):
        spoilt = ((b"Mcp-Name", wrong),)
        reply = modern("tools/call", name, drop=(b"Mcp-Name",), add=spoilt)
        assert code(reply) == (400, -32020)


def test_a_stateless_request_without_its_envelope_is_invalid() -> None:
    headers = ((b"mcp-protocol-version", b"2026-07-28"), (b"mcp-method", b"tools/list"))
    assert code(ask("tools/list", headers=headers)) == (400, -32602)
    only_version = {"_meta": {VERSION: "2026-07-28"}}
    assert code(ask("tools/list", only_version, headers=headers)) == (400, -32602)


# --- HTTP


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_is_no_stream_and_no_session_to_end(method: str) -> None:
    reply = server.read(method, [], b"")
    assert isinstance(reply, Reply)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [
        (None, True),
        (b"http://localhost:3000", True),
        (b"https://127.0.0.1", True),
        (b"http://[::1]:80", True),
        (b"https://console.example.com", True),
        (b"https://evil.example.com", False),
        (b"http://localhost.evil.example.com", False),
        (b"http://127.0.0.1.evil.example.com", False),
        (b"null", False),
        (b"", False),
    ],
)
def test_a_page_that_is_not_from_here_may_not_call(origin: bytes | None, welcome: bool) -> None:
    headers = [JSON] if origin is None else [JSON, (b"origin", origin)]
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    got = server.read("POST", headers, body, origins=["https://console.example.com"])
    assert isinstance(got, Exchange) is welcome
    if isinstance(got, Reply):
        assert got.status == 403


def test_an_answer_comes_as_a_stream_only_to_who_takes_nothing_else() -> None:
    both = ((b"accept", b"application/json, text/event-stream"),)
    assert ask("ping", headers=both).headers["content-type"] == "application/json"
    stream = ask("ping", headers=((b"accept", b"text/event-stream"),))
    assert stream.headers["content-type"] == "text/event-stream"
    event, data, *_ = stream.body.decode().split("\n")
    assert event == "event: message"
    assert json.loads(data.removeprefix("data: "))["result"] == {}
    assert ask("ping", headers=((b"accept", b"text/html"),)).status == 406


def test_only_json_is_read() -> None:
    assert answer(b"{}", [(b"content-type", b"text/plain")]).status == 415


# --- messages


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":1e999}}',
        b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}',
        b"[" * 100_000,
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 500 + b"1" + b"}" * 501,
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
        b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":true,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":7}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}',
    ],
)
def test_what_is_not_one_message_is_a_bad_request(body: bytes) -> None:
    reply = answer(body, [JSON])
    assert reply.status == 400
    assert document(reply)["error"]["code"] in (-32700, -32600, -32602)


def test_notifications_are_taken_and_not_answered() -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert answer(note, [JSON]).status == 202
    assert answer(note, [JSON, (b"mcp-protocol-version", b"2026-07-28")]).status == 202
    response = {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert answer(response, [JSON]).status == 202
    modern_header = (b"mcp-protocol-version", b"2026-07-28")
    assert answer(response, [JSON, modern_header]).status == 400


# --- lists


def test_a_long_list_comes_in_pages_and_ends() -> None:
    names = [f"s__t{number:03}" for number in range(250)]
    listing, found, cursor = tools(*names), [], None
    for _ in range(3):
        params = {} if cursor is None else {"cursor": cursor}
        page = document(ask("tools/list", params, listing=listing))["result"]
        found += [tool["name"] for tool in page["tools"]]
        cursor = page.get("nextCursor")
    assert found == names
    assert cursor is None


@pytest.mark.parametrize("cursor", ["", "!!!", "ä", 7, "a" * 1000, ["x"]])
def test_a_cursor_that_is_not_ours_is_invalid(cursor: Any) -> None:
    for method in ("tools/list", "resources/list"):
        assert document(ask(method, {"cursor": cursor}))["error"]["code"] == -32602


def test_what_has_to_be_done_is_said_and_not_done() -> None:
    call = ask("tools/call", {"name": "a__b", "arguments": {"x": 1}})
    assert (call.name, call.arguments) == ("a.b", {"x": 1})
    assert isinstance(ask("resources/list"), ArtifactList)
    identity = "art-" + 32 * "a"
    read = ask("resources/read", {"uri": f"interlock://artifacts/{identity}?offset=5&limit=9"})
    assert isinstance(read, ArtifactRead)
    assert (read.id, read.offset, read.limit) == (identity, 5, 9)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "interlock://artifacts/../x",
        "interlock://artifacts/art-" + 32 * "A",
        "interlock://artifacts/art-" + 32 * "a" + "?offset=-1",
        "interlock://artifacts/art-" + 32 * "a" + "?offset=1&limit=1&x=1",
        "interlock://artifacts/art-" + 32 * "a" + "?other=1",
    ],
)
def test_an_address_that_is_not_an_artifacts_is_not_found(uri: str) -> None:
    assert document(ask("resources/read", {"uri": uri}))["error"]["code"] == -32002
    assert code(modern("resources/read", {"uri": uri})) == (200, -32602)


def test_a_tool_is_called_the_same_through_the_deferred_door() -> None:
    inner = {"name": "a__b", "arguments": {"x": 1}}
    call = ask("tools/call", {"name": finder.CALL, "arguments": inner})
    assert (call.name, call.arguments) == ("a.b", {"x": 1})
    wrong = ask("tools/call", {"name": finder.CALL, "arguments": {"name": 7}})
    assert document(wrong)["result"]["isError"] is True


def test_a_model_reads_an_artifact_with_a_tool() -> None:
    identity = "art-" + 32 * "a"
    arguments = {"id": identity, "offset": 7, "limit": 10**9}
    read = ask("tools/call", {"name": finder.READ, "arguments": arguments})
    assert isinstance(read, ArtifactRead)
    assert (read.id, read.offset, read.limit) == (identity, 7, finder.MOST_READ_BYTES)
    reply = read.contents("some", media="text/plain", total=100, next_offset=11)
    told = document(reply)["result"]["content"][0]["text"]
    assert told == "some\n[… of 100 bytes; go on at offset 11]"
    for wrong in (
        {},
        {"id": "../x"},
        {"id": identity, "offset": -1},
        {"id": identity, "limit": "x"},
    ):
        answered = ask("tools/call", {"name": finder.READ, "arguments": wrong})
        assert document(answered)["result"]["isError"] is True


def test_the_listing_is_needed_only_where_tools_are_shown() -> None:
    assert exchange("tools/list").lists
    assert not exchange("tools/call").lists
    assert not exchange("resources/list").lists


# --- refusals


def exchange(method: str = "tools/call") -> Exchange:
    body = json.dumps({"jsonrpc": "2.0", "id": 9, "method": method, "params": {"name": "x"}})
    found = server.read("POST", [JSON], body.encode())
    assert isinstance(found, Exchange)
    return found


def test_wrong_arguments_are_told_to_the_model() -> None:
    reply = exchange().refuse(Refusal(Code.INVALID_REQUEST, "argument 'a': 7 is not a text"))
    found = document(reply)["result"]
    assert found["isError"] is True
    assert "argument 'a'" in found["content"][0]["text"]


def test_every_other_refusal_is_an_error_with_its_facts() -> None:
    reply = exchange().refuse(Refusal(Code.BUDGET_EXCEEDED, "no", rule="r", left_nano=0))
    found = document(reply)
    assert (reply.status, found["id"], found["error"]["code"]) == (200, 9, -31001)
    assert found["error"]["data"]["rule"] == "r"
    unknown = document(exchange().refuse(Refusal(Code.UNKNOWN_TOOL, "no such")))
    assert (unknown["error"]["code"], unknown["error"]["data"]["code"]) == (-32602, "unknown_tool")
    nobody = exchange().refuse(Refusal(Code.UNAUTHENTICATED, "who"))
    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")


# --- strangers

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
METHODS = st.sampled_from(
    ["tools/call", "tools/list", "resources/read", "resources/list", "initialize", "ping",
     "server/discover", "resources/templates/list", "subscriptions/listen"]
)  # fmt: skip
META = st.dictionaries(st.sampled_from([VERSION, CAPABILITIES, "x"]), VALUES)
PARAMS = st.dictionaries(
    st.sampled_from(["name", "arguments", "cursor", "uri", "protocolVersion"]), VALUES
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | VALUES,
        "id": st.integers() | VALUES,
        "method": METHODS | VALUES,
        "params": st.builds(lambda p, m: {**p, "_meta": m}, PARAMS, META) | PARAMS | VALUES,
        "result": VALUES,
    },
)
BODIES = st.binary() | st.builds(lambda value: json.dumps(value).encode(), MESSAGES | VALUES)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"accept", b"origin", b"x"]
        ),
        st.sampled_from([b"2026-07-28", b"tools/call", b"*/*"]) | st.binary(),
    )
)


@settings(max_examples=500, deadline=None)
@given(body=BODIES, headers=HEADERS)
def test_whatever_is_sent_is_answered_or_understood(
    body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    found = answer(body, headers)
    if isinstance(found, Reply):
        assert 200 <= found.status < 500
        if found.headers.get("content-type") == "application/json":
            json.loads(found.body)
    else:
        assert isinstance(found, ToolCall | ArtifactList | ArtifactRead)
        assert isinstance(found.exchange.refuse(Refusal(Code.STOPPED, "stop")).body, bytes)
