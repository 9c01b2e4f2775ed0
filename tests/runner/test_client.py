"""The gateway client: patient with what passes, exact about what does not."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.app.sockets import bind
from gateway.values import CallKey, RunId, StepPath
from runner.client import (
    REFUSED_ATTEMPTS,
    UNREACHABLE_ATTEMPTS,
    CallRefused,
    ControlSocket,
    GatewayClient,
    GatewayUnreachable,
)

KEY = CallKey(RunId("run-1"), StepPath("7"))
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "hi"}}]}


class Server:
    """Answers with what is planned: (status, body, headers); the last plan repeats."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.plan: list[tuple[int, Any, dict[str, str]]] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []

    def start(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.seen.append((self.path, headers, json.loads(body)))
                plan = server.plan.pop(0) if len(server.plan) > 1 else server.plan[0]
                status, answer, headers = plan
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                """Silent."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{self.http.server_port}"
        (self.state / "gateway.json").write_text(json.dumps({"url": url}))

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    made.stop()


def ask(server: Server, what: str = "chat", on_sleep: Any = None) -> tuple[Any, list[float]]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if on_sleep is not None:
            on_sleep(len(waits))

    async def scenario() -> Any:
        async with GatewayClient(server.state, sleep) as client:
            if what == "chat":
                return await client.chat("secret-token", KEY, {"model": "m"})
            if what == "tool":
                return await client.call_tool("secret-token", KEY, "ci__retry", {"job": 1})
            return await client.list_tools("secret-token")

    return asyncio.run(scenario()), waits


def refusal(code: str, status: int = 403, **details: Any) -> tuple[int, Any, dict[str, str]]:
    return status, {"error": {"code": code, "message": f"no: {code}", **details}}, {}


def test_an_answer_comes_with_its_figures(server: Server) -> None:
    headers = {
        "X-Interlock-Cost-Nano": "1250",
        "X-Interlock-Tokens": "310,21",
        "X-Interlock-Label": "untrusted/secret",
    }
    server.plan = [(200, ANSWER, headers)]
    reply, _ = ask(server)
    assert reply.body == ANSWER
    assert (reply.tokens, reply.cost_nano, str(reply.label)) == (331, 1250, "untrusted/secret")
    assert not reply.replayed
    path, sent, _ = server.seen[0]
    assert path == "/v1/chat/completions"
    assert sent["authorization"] == "Bearer secret-token"
    assert sent["x-interlock-call-key"] == "run-1/7/0"


def test_a_tool_call_is_mcp_and_its_errors_are_read_from_the_rpc(server: Server) -> None:
    result = {"content": [{"type": "text", "text": "done"}]}
    server.plan = [
        (200, {"jsonrpc": "2.0", "id": 1, "result": result}, {"X-Interlock-Effect-Key": "eff-1"})
    ]
    reply, _ = ask(server, "tool")
    assert (reply.body, reply.effect_key) == (result, "eff-1")
    params = server.seen[0][2]["params"]
    assert params == {"name": "ci__retry", "arguments": {"job": 1}}
    error = {"code": -32000, "message": "no", "data": {"code": "not_granted", "rule": "r"}}
    server.plan = [(200, {"jsonrpc": "2.0", "id": 1, "error": error}, {})]
    with pytest.raises(CallRefused) as refused:
        ask(server, "tool")
    assert refused.value.code == "not_granted"
    assert refused.value.details["rule"] == "r"


def test_tools_are_listed_page_by_page(server: Server) -> None:
    server.plan = [
        (200, {"result": {"tools": [{"name": "a"}], "nextCursor": "2"}}, {}),
        (200, {"result": {"tools": [{"name": "b"}]}}, {}),
    ]
    tools, _ = ask(server, "list")
    assert [tool["name"] for tool in tools] == ["a", "b"]
    assert server.seen[1][2]["params"] == {"cursor": "2"}


@pytest.mark.parametrize(
    "code", ["not_granted", "budget_exceeded", "revoked", "outcome_unknown", "request_mismatch"]
)
def test_a_final_refusal_is_not_repeated(server: Server, code: str) -> None:
    server.plan = [refusal(code, left_nano=5)]
    with pytest.raises(CallRefused) as refused:
        ask(server)
    assert (refused.value.code, refused.value.details["left_nano"]) == (code, 5)
    assert len(server.seen) == 1


def test_a_passing_refusal_is_repeated_with_the_same_key_and_then_reported(server: Server) -> None:
    server.plan = [refusal("provider_error", 502), (200, ANSWER, {})]
    reply, waits = ask(server)
    assert reply.body == ANSWER
    assert len(waits) == 1
    keys = {sent.get("x-interlock-call-key") for _, sent, _ in server.seen}
    assert keys == {"run-1/7/0"}
    server.seen.clear()
    server.plan = [refusal("provider_error", 502)]
    with pytest.raises(CallRefused):
        ask(server)
    assert len(server.seen) == REFUSED_ATTEMPTS


def test_retry_after_is_obeyed(server: Server) -> None:
    status, body, _ = refusal("provider_busy", 429)
    server.plan = [(status, body, {"Retry-After": "7"}), (200, ANSWER, {})]
    _, waits = ask(server)
    assert waits == [7.0]


def test_a_restarted_gateway_is_found_at_its_new_address(server: Server) -> None:
    server.plan = [(200, ANSWER, {})]
    server.stop()

    def restart(waited: int) -> None:
        if waited == 3:
            server.start()

    reply, waits = ask(server, on_sleep=restart)
    assert reply.body == ANSWER
    assert len(waits) == 3


def test_a_gateway_that_stays_away_is_unreachable_after_bounded_patience(tmp_path: Path) -> None:
    server = Server(tmp_path)
    waits: list[float] = []
    with pytest.raises(GatewayUnreachable, match=r"gateway\.json"):
        ask(server, on_sleep=waits.append)
    assert len(waits) == UNREACHABLE_ATTEMPTS - 1


def test_something_else_on_the_port_is_not_believed(server: Server) -> None:
    server.plan = [(200, b"<html>", {})]
    with pytest.raises(GatewayUnreachable):
        ask(server)


def test_a_socket_is_opened_when_a_restarted_gateway_is_back(tmp_path: Path) -> None:
    state = tmp_path / ("d" * 120)
    state.mkdir()
    asked: list[bytes] = []
    waits: list[float] = []
    back: list[asyncio.Server] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"}"))
        body = json.dumps({"directory": "/sockets/run-1"})
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            bound = bind(state, "gateway-control.sock", mode=0o600)
            back.append(await asyncio.start_unix_server(answer, sock=bound))

    async def scenario() -> Path:
        opened = await ControlSocket(state, sleep).open(RunId("run-1"), "f" * 64)
        back[0].close()
        return opened

    assert asyncio.run(scenario()) == Path("/sockets/run-1")
    assert waits == sorted(waits)
    assert asked[0].startswith(b"PUT /runs/run-1 ")


def test_a_gateway_that_stays_away_opens_no_socket(tmp_path: Path) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    with pytest.raises(GatewayUnreachable, match="control socket"):
        asyncio.run(ControlSocket(tmp_path, sleep).open(RunId("run-1"), "f" * 64))
    assert len(waits) == UNREACHABLE_ATTEMPTS - 1
