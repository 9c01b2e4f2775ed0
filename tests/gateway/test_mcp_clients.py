"""The official MCP clients, unchanged, in both eras: against our face, with real servers behind."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError

from gateway.policy import Access, Grants, Policy, ToolClass, ToolGrant, ToolServer
from tests.support import old_mcp
from tests.support.mcp_gateway import McpGateway, serve

SERVER = Path(old_mcp.__file__).with_name("sdk_server.py")
CLIENT_1 = SERVER.with_name("sdk_client_1.py")
READ = ToolClass(access=(Access.READ,))
WHOLE = "".join(f"line {number} äöü\n" for number in range(2000))


def policy(server: ToolServer) -> Policy:
    return Policy(servers={"sdk": server})


def command(python: Path | str) -> ToolServer:
    tools = dict.fromkeys(("add", "big", "fail", "echo", "die"), READ)
    return ToolServer(command=(str(python), str(SERVER)), tools=tools, max_result_bytes=4096)


GRANTS = Grants(tools={f"sdk.{name}": ToolGrant() for name in ("add", "big", "fail", "echo")})


@pytest.fixture(params=["line 1 behind", "line 2 behind"])
def gateway(request: Any, tmp_path: Path) -> Iterator[tuple[McpGateway, str]]:
    python = old_mcp.interpreter() if "1" in request.param else sys.executable
    app = McpGateway(policy(command(python)), GRANTS, tmp_path)
    with serve(app) as url:
        yield app, url


def test_the_current_client_speaks_the_stateless_protocol(
    gateway: tuple[McpGateway, str],
) -> None:
    app, url = gateway

    async def talk() -> None:
        async with Client(url) as client:
            listed = await client.list_tools()
            assert [tool.name for tool in listed.tools] == [
                "interlock__read_artifact",
                "sdk__add", "sdk__big", "sdk__echo", "sdk__fail",
            ]  # fmt: skip
            assert listed.tools[1].description == "Adds two numbers."
            assert "a" in listed.tools[1].input_schema["properties"]
            added = await client.call_tool("sdk__add", {"a": 1, "b": 2})
            assert (added.content[0].text, added.is_error) == ("3", False)  # type: ignore[union-attr]
            failed = await client.call_tool("sdk__fail", {})
            assert failed.is_error
            wrong = await client.call_tool("sdk__add", {"a": "x", "b": 2})
            assert wrong.is_error
            assert "'a'" in wrong.content[0].text  # type: ignore[union-attr]
            with pytest.raises(MCPError) as refused:
                await client.call_tool("sdk__die", {})
            assert refused.value.error.data["code"] == "not_granted"
            big = await client.call_tool("sdk__big", {"count": 2000})
            assert f"{len(WHOLE.encode())} bytes" in big.content[0].text  # type: ignore[union-attr]
            identity = big.content[0].text.partition("with id ")[2].partition(",")[0]  # type: ignore[union-attr]
            asked = {"id": identity, "offset": len(WHOLE.encode()) - 10, "limit": 100}
            rest = await client.call_tool("interlock__read_artifact", asked)
            end = f"[… of {len(WHOLE.encode())} bytes; this is its end]"
            told = rest.content[0].text  # type: ignore[union-attr]
            assert told == f"{WHOLE.encode()[-10:].decode()}\n{end}"
            (resource,) = (await client.list_resources()).resources
            read = await client.read_resource(resource.uri)
            assert read.contents[0].text == WHOLE  # type: ignore[union-attr]
            with pytest.raises(MCPError) as missing:
                await client.read_resource("interlock://artifacts/art-" + 32 * "0")
            assert missing.value.error.code == -32602

    asyncio.run(talk())
    assert {r.get("mcp-protocol-version") for r in app.requests} == {"2026-07-28"}
    assert "initialize" not in {r.get("mcp-method") for r in app.requests}


def test_the_current_client_can_be_told_to_speak_the_previous_protocol(
    gateway: tuple[McpGateway, str],
) -> None:
    _, url = gateway

    async def talk() -> None:
        async with Client(url, mode="legacy") as client:
            assert client.protocol_version == "2025-11-25"
            added = await client.call_tool("sdk__add", {"a": 20, "b": 22})
            assert added.content[0].text == "42"  # type: ignore[union-attr]

    asyncio.run(talk())


def test_the_previous_client_speaks_its_own_protocol(gateway: tuple[McpGateway, str]) -> None:
    _, url = gateway
    done = subprocess.run(
        [old_mcp.interpreter(), str(CLIENT_1), url], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["version"] == "2025-11-25"
    assert seen["server"] == "interlock-gateway"
    assert seen["tools"]["sdk__add"] == "Adds two numbers."
    assert seen["added"] == "3"
    assert seen["failed"][0] is True
    assert "Error executing tool fail" in seen["failed"][1]
    assert seen["wrong"][0] is True
    assert seen["refused"] == [-31001, "not_granted"]
    assert seen["preview"].startswith("line 0 äöü\n")
    assert seen["whole"] == WHOLE
    assert seen["missing"] == -32002


@pytest.mark.parametrize("line", [1, 2])
@pytest.mark.parametrize("mode", [(), ("json",)])
def test_servers_of_both_eras_are_called_over_http(
    line: int, mode: tuple[str, ...], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    python = str(old_mcp.interpreter()) if line == 1 else sys.executable
    log = (tmp_path / "server.log").open("w+")
    running = subprocess.Popen([python, str(SERVER), str(port), *mode], stderr=log)
    try:
        for text in iter(lambda: _last_line(tmp_path / "server.log", running), ""):
            if "Uvicorn running" in text:
                break
        server = ToolServer(url=f"http://127.0.0.1:{port}/mcp", tools={"add": READ})
        app = McpGateway(policy(server), GRANTS, tmp_path)
        with serve(app) as url:

            async def talk() -> None:
                async with Client(url) as client:
                    listed = {tool.name: tool for tool in (await client.list_tools()).tools}
                    assert listed["sdk__echo"].description == "Says it again."
                    added = await client.call_tool("sdk__add", {"a": 40, "b": 2})
                    assert added.content[0].text == "42"  # type: ignore[union-attr]

            asyncio.run(talk())
            assert app.servers is not None
            (client,) = app.servers._clients.values()
            expected = "2025-11-25" if line == 1 else "2026-07-28"
            assert client.connection.version == expected
    finally:
        running.kill()
        running.wait()
        log.close()


def _last_line(log: Path, running: subprocess.Popen[bytes]) -> str:
    assert running.poll() is None, log.read_text()
    return log.read_text() or " "


def test_a_large_catalogue_is_found_and_called_by_the_real_client(tmp_path: Path) -> None:
    server = command(sys.executable).model_copy(update={"listing": "deferred"})
    with serve(McpGateway(policy(server), GRANTS, tmp_path)) as url:

        async def talk() -> None:
            async with Client(url) as client:
                listed = [tool.name for tool in (await client.list_tools()).tools]
                assert listed == [
                    "interlock__call_tool",
                    "interlock__find_tools",
                    "interlock__read_artifact",
                ]
                query = {"query": "add two numbers"}
                found = await client.call_tool("interlock__find_tools", query)
                (best, *_) = found.structured_content["tools"]  # type: ignore[index]
                assert best["name"] == "sdk__add"
                call = {"name": best["name"], "arguments": {"a": 1, "b": 1}}
                added = await client.call_tool("interlock__call_tool", call)
                assert added.content[0].text == "2"  # type: ignore[union-attr]
                with pytest.raises(MCPError):
                    await client.call_tool("interlock__call_tool", {"name": "sdk__die"})

        asyncio.run(talk())
