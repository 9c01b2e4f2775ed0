"""The MCP room behind a real gateway process: what its own tests show, with identity and ledger."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from gateway import access
from gateway.mcp.fingerprints import fingerprint
from gateway.mcp.upstream import DESCRIBE_SECONDS
from gateway.policy import Access, ToolClass, ToolGrant, ToolServer
from gateway.policy.rules import Guardrail, Hook, PiiCheck, RegexCheck
from gateway.values import Purpose, Sensitivity
from tests.gateway.stage import Stage, grants, over_socket, principal
from tests.gateway.tool_stage import (
    OTHER,
    READ,
    WRITE,
    alerts,
    ask,
    at,
    call,
    publish,
    refused,
    said,
    start,
)
from tests.support.mcp_fake import FakeServer, tool

TEXT = "".join(f"line {number} äöü\n" for number in range(2000))


@pytest.fixture
def hub() -> Iterator[FakeServer]:
    with FakeServer() as server:
        server.tools = [tool("open"), tool("list")]
        yield server


# --- large results


def large(stage: Stage, hub: FakeServer, *, text: str = TEXT) -> str:
    """A gateway that has given a large result to run-1; the artifact's id."""
    answered = {"content": [{"type": "text", "text": text}]}
    hub.plan["tools/call"] = lambda params, headers: answered
    secret = ToolClass(access=(Access.READ,), trusted=True, sensitivity=Sensitivity.SECRET)
    start(stage, {"hub": at(hub, tools={"list": secret}, max_result_bytes=4096)})
    answer = call(stage, "hub__list", key="run-1/1/0")
    assert len(answer.body) < 5000
    assert f"{len(text.encode())} bytes" in said(answer)
    return str(answer.json()["result"]["_meta"]["interlock/artifact"]["id"])


def test_a_large_result_is_read_piece_by_piece_over_http(stage: Stage, hub: FakeServer) -> None:
    identity = large(stage, hub)
    whole, total = b"", len(TEXT.encode())
    while len(whole) < total:
        piece = stage.get(f"/v1/artifacts/{identity}?offset={len(whole)}&limit=10000")
        end = len(whole) + len(piece.body) - 1
        assert piece.status == 200
        assert piece.headers["content-range"] == f"bytes {len(whole)}-{end}/{total}"
        assert piece.headers["content-type"] == "text/plain; charset=utf-8"
        assert piece.headers["x-interlock-label"] == "trusted/secret"
        whole += piece.body
    assert whole.decode() == TEXT
    assert stage.get(f"/v1/artifacts/{identity}").body == whole
    past = stage.get(f"/v1/artifacts/{identity}?offset={total + 5}")
    assert (past.status, past.body) == (200, b"")
    assert past.headers["content-range"] == f"bytes */{total}"
    again = call(stage, "hub__list", key="run-1/1/0")
    assert again.headers["x-interlock-replayed"] == "1"
    assert identity in said(again)
    assert len(stage.database.read("SELECT id FROM artifacts")) == 1


def test_an_artifact_is_for_its_own_run_and_nothing_else_is_under_that_path(
    stage: Stage, hub: FakeServer
) -> None:
    identity = large(stage, hub)
    path = f"/v1/artifacts/{identity}"
    other = stage.get(path, token=OTHER)
    assert (other.status, other.code) == (404, "not_found")
    assert stage.get(path, token="nobody's").code == "unauthenticated"
    assert stage.get(path, token=None).code == "unauthenticated"
    for bad in (
        "offset=-1",
        "limit=many",
        "offset=1.5",
        "limit=%D9%A3",
        "offset=1&" * 20 + "limit=1",
    ):
        assert stage.get(f"{path}?{bad}").code == ("invalid_request"), bad
    for strange in ("../calls", "..%2f..%2fetc/passwd", "", "art-%00", f"{identity}/../x", "'--"):
        assert stage.get(f"/v1/artifacts/{strange}").code == "not_found", strange
    assert stage.post(path, {}).code == "not_found"
    stage.revoke("run-1")
    assert stage.get(path).code == "revoked"


def test_a_large_result_is_a_resource_and_a_tool_for_models(stage: Stage, hub: FakeServer) -> None:
    identity = large(stage, hub)
    (resource,) = ask(stage, "resources/list")["result"]["resources"]
    assert (resource["name"], resource["size"]) == (identity, len(TEXT.encode()))
    assert ask(stage, "resources/list", OTHER)["result"]["resources"] == []
    (contents,) = ask(stage, "resources/read", uri=resource["uri"])["result"]["contents"]
    assert contents["text"] == TEXT
    part = f"{resource['uri']}?offset=7&limit=6"
    (contents,) = ask(stage, "resources/read", uri=part)["result"]["contents"]
    assert contents["text"] == TEXT.encode()[7:13].decode()
    assert contents["_meta"]["interlock/next-offset"] == 13
    error = ask(stage, "resources/read", OTHER, uri=resource["uri"])["error"]
    assert (error["code"], error["data"]["code"]) == (-32002, "not_found")
    read = call(stage, "interlock__read_artifact", id=identity, offset=0, limit=6)
    assert said(read).startswith("line 0\n[… of ")
    assert read.headers["x-interlock-label"] == "trusted/secret"
    other = call(stage, "interlock__read_artifact", token=OTHER, id=identity)
    assert refused(other) == "not_found"
    assert hub.methods().count("tools/call") == 1


def test_a_guardrail_sees_a_large_result_before_it_is_kept(stage: Stage, hub: FakeServer) -> None:
    private = "x" * 9000 + " mail me: ada@example.org"
    hub.plan["tools/call"] = lambda params, headers: {
        "content": [{"type": "text", "text": private}]
    }
    mask = Guardrail(
        name="no-mail", hooks=(Hook.TOOL_OUTPUT,), check=PiiCheck(kinds=("email",)), action="mutate"
    )
    never = Guardrail(name="no-x", hooks=(Hook.TOOL_OUTPUT,), check=RegexCheck(pattern="x{9000}"))
    server = at(hub, tools={"list": READ}, max_result_bytes=2048)
    publish(stage, {"hub": server}, guardrails=(mask,))
    stage.start()
    identity = call(stage, "hub__list").json()["result"]["_meta"]["interlock/artifact"]["id"]
    kept = stage.get(f"/v1/artifacts/{identity}").body.decode()
    assert kept.startswith("xxx")
    assert "ada@example.org" not in kept
    publish(stage, {"hub": server}, guardrails=(never,))
    withheld = call(stage, "hub__list", key="run-1/2/0")
    assert refused(withheld) == "guardrail"
    assert len(stage.database.read("SELECT id FROM artifacts")) == 1


# --- what servers say of their tools


def locked(description: str = "Does it.") -> ToolClass:
    return WRITE.model_copy(
        update={"fingerprint": fingerprint("open", description, {"type": "object"})}
    )


def test_a_locked_tool_that_says_what_it_said_is_called_and_described(
    stage: Stage, hub: FakeServer
) -> None:
    start(stage, {"hub": at(hub, tools={"open": locked()})})
    described = ask(stage, "tools/list")["result"]["tools"]
    assert described[0]["description"] == "Does it."
    assert said(call(stage, "hub__open")) == "open"
    assert alerts(stage) == []


def test_a_locked_tool_that_says_something_else_is_closed_and_told_of_once(
    stage: Stage, hub: FakeServer
) -> None:
    start(stage, {"hub": at(hub, tools={"open": locked("Used to do it.")})})
    assert [t["name"] for t in ask(stage, "tools/list")["result"]["tools"]] == []
    for step in range(3):
        answer = call(stage, "hub__open", key=f"run-1/{step}/0")
        assert refused(answer) == "tool_changed"
        assert "interlock lock" in answer.json()["error"]["message"]
    assert "tools/call" not in hub.methods()
    (text,) = alerts(stage)
    assert "hub.open describes itself otherwise" in text
    assert {row["state"] for row in stage.rows()} <= {"released"}


def test_what_is_settled_is_answered_again_though_its_server_has_changed_or_gone(
    stage: Stage, hub: FakeServer
) -> None:
    start(stage, {"hub": at(hub, tools={"open": locked()})})
    assert said(call(stage, "hub__open", key="run-1/1/0", text="a")) == "open"
    publish(stage, {"hub": at(hub, tools={"open": locked("As it never was.")})})
    assert refused(call(stage, "hub__open", key="run-1/2/0", text="b")) == "tool_changed"
    again = call(stage, "hub__open", key="run-1/1/0", text="a")
    assert (said(again), again.headers["x-interlock-replayed"]) == ("open", "1")
    nowhere = ToolServer(url="http://127.0.0.1:9/mcp", tools={"open": locked()})
    publish(stage, {"hub": nowhere})
    assert refused(call(stage, "hub__open", key="run-1/3/0", text="c")) == "provider_error"
    again = call(stage, "hub__open", key="run-1/1/0", text="a")
    assert (said(again), again.headers["x-interlock-replayed"]) == ("open", "1")
    assert hub.methods().count("tools/call") == 1


def test_an_unlocked_tool_may_say_what_it_likes(stage: Stage, hub: FakeServer) -> None:
    hub.tools = [tool("open", "Whatever.")]
    start(stage, {"hub": at(hub)})
    listed = {t["name"]: t for t in ask(stage, "tools/list")["result"]["tools"]}
    assert listed["hub__open"]["description"] == "Whatever."
    assert said(call(stage, "hub__open")) == "open"


def test_a_server_that_calls_its_tool_destructive_is_believed(
    stage: Stage, hub: FakeServer
) -> None:
    hub.tools = [tool("open", annotations={"destructiveHint": True}), tool("list")]
    start(stage, {"hub": at(hub)})
    listed = {t["name"]: t["annotations"] for t in ask(stage, "tools/list")["result"]["tools"]}
    assert listed["hub__open"]["destructiveHint"] is True
    assert refused(call(stage, "hub__open")) == "approval_required"
    assert said(call(stage, "hub__list")) == "list"
    assert [params["name"] for method, params, _ in hub.asked if method == "tools/call"] == ["list"]


def test_a_server_that_is_slow_to_admit_it_is_believed_all_the_same(
    stage: Stage, hub: FakeServer
) -> None:
    hub.tools = [tool("open", annotations={"destructiveHint": True})]
    silent = threading.Event()

    def answer(params: dict[str, Any], headers: dict[str, str]) -> Any:
        silent.wait(DESCRIBE_SECONDS + 1)
        return {"tools": hub.tools}

    hub.plan["tools/list"] = answer
    start(stage, {"hub": at(hub, tools={"open": WRITE})})
    assert refused(call(stage, "hub__open")) == "approval_required"
    assert "tools/call" not in hub.methods()


def test_what_is_settled_is_answered_again_without_asking_its_server(
    stage: Stage, hub: FakeServer
) -> None:
    start(stage, {"hub": at(hub)}, INTERLOCK_CLOCK_OFFSET="0")
    assert said(call(stage, "hub__open", key="run-1/1/0")) == "open"
    asked = len(hub.asked)
    stage.terminate()
    stage.start()
    assert said(call(stage, "hub__open", key="run-1/1/0")) == "open"
    assert len(hub.asked) == asked


def test_arguments_that_break_the_schema_are_told_to_the_model(
    stage: Stage, hub: FakeServer
) -> None:
    schema = {
        "type": "object",
        "properties": {"count": {"type": "integer"}},
        "required": ["count"],
    }
    hub.tools = [tool("open", inputSchema=schema)]
    start(stage, {"hub": at(hub, tools={"open": WRITE})})
    for wrong in ({"count": "many"}, {}):
        answer = call(stage, "hub__open", **wrong)
        assert answer.json()["result"]["isError"] is True
        assert "count" in said(answer)
    assert said(call(stage, "hub__open", count=3)) == "open"
    assert hub.methods().count("tools/call") == 1


def test_a_large_catalogue_is_searched_and_called_under_the_same_grants(
    stage: Stage, hub: FakeServer
) -> None:
    names = [f"t{number}" for number in range(41)]
    hub.tools = [tool(name, f"Handles case {name}.") for name in [*names, "secret"]]
    server = at(hub, tools={**dict.fromkeys(names, WRITE), "secret": WRITE})
    publish(stage, {"hub": server})
    stage.issue(
        granted=grants(tools={f"hub.{name}": ToolGrant() for name in names}), token="narrow"
    )
    stage.start()
    listed = [t["name"] for t in ask(stage, "tools/list", "narrow")["result"]["tools"]]
    assert listed == ["interlock__call_tool", "interlock__find_tools", "interlock__read_artifact"]
    found = call(stage, "interlock__find_tools", token="narrow", query="case t17")
    assert found.json()["result"]["structuredContent"]["tools"][0]["name"] == "hub__t17"
    nothing = call(stage, "interlock__find_tools", token="narrow", query="secret")
    assert "hub__secret" not in said(nothing)
    through = {"name": "hub__t17", "arguments": {}}
    done = call(stage, "interlock__call_tool", key="run-1/1/0", token="narrow", **through)
    assert said(done) == "t17"
    assert done.headers["x-interlock-model"] == "hub.t17"
    secret = call(stage, "interlock__call_tool", token="narrow", name="hub__secret", arguments={})
    assert refused(secret) == "not_granted"
    assert hub.methods().count("tools/call") == 1


# --- evals


def test_an_eval_neither_calls_nor_lists_a_real_server(stage: Stage, hub: FakeServer) -> None:
    publish(stage, {"hub": at(hub)})
    world = [{"tool": "hub.open", "args": {}, "result": "recorded", "error": False}]
    for token, recorded in (("recorded", world), ("bare", None)):
        who = principal(f"run-{token}", purpose=Purpose.EVAL, occurrence=f"eval:{token}")
        allowed = grants(tools={"hub.open": ToolGrant(), "hub.list": ToolGrant()})
        stage.issue(who, allowed, recorded, token)
    stage.start()
    assert said(call(stage, "hub__open", token="recorded")) == "recorded"
    assert call(stage, "hub__open", token="bare").json()["result"]["isError"] is True
    for token in ("recorded", "bare"):
        listed = [t["name"] for t in ask(stage, "tools/list", token)["result"]["tools"]]
        assert listed == ["hub__list", "hub__open"]
        call(stage, "interlock__find_tools", token=token, query="open")
    assert hub.asked == []


# --- the official client


async def _talk(target: Any) -> None:
    async with Client(target) as client:
        names = [each.name for each in (await client.list_tools()).tools]
        assert names == ["hub__list", "hub__open", "interlock__read_artifact"]
        opened = await client.call_tool("hub__open", {})
        assert opened.content[0].text == "open"  # type: ignore[union-attr]
        with pytest.raises(MCPError) as caught:
            await client.call_tool("hub__other", {})
        assert caught.value.error.code == -32602
        assert (await client.list_resources()).resources == []


def test_the_official_client_works_over_http(stage: Stage, hub: FakeServer) -> None:
    start(stage, {"hub": at(hub)})
    headers = {"authorization": "Bearer token-of-run-1"}

    async def play() -> None:
        async with httpx2.AsyncClient(headers=headers) as http:
            url = f"{stage.ready['url']}/mcp"
            await _talk(streamable_http_client(url, http_client=http))

    asyncio.run(play())


def test_the_official_client_works_through_the_runs_socket(stage: Stage, hub: FakeServer) -> None:
    start(stage, {"hub": at(hub)})
    token_hash = access.hash_token("token-of-run-1")
    opened = over_socket(
        stage.state / "gateway-control.sock", "PUT", "/runs/run-1", {"token_hash": token_hash}
    )
    folder = os.open(opened.json()["directory"], os.O_RDONLY)

    async def play() -> None:
        transport = httpx2.AsyncHTTPTransport(uds=f"/proc/self/fd/{folder}/gateway.sock")
        async with httpx2.AsyncClient(transport=transport) as http:
            await _talk(streamable_http_client("http://localhost/mcp", http_client=http))

    try:
        asyncio.run(play())
    finally:
        os.close(folder)
