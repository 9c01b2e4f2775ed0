"""A tool server in this process that answers as a test tells it to, and an authorization server.

`plan` maps a JSON-RPC method to a function of (params, headers) that returns a result, or raises
`Say` to answer something else entirely. Every request is kept in `asked`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

Answer = Callable[[dict[str, Any], dict[str, str]], Any]


class Say(Exception):
    """Answer with this status, body and content type, whatever was asked."""

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        kind: str = "application/json",
        repeat: int = 1,
        session: str = "",
    ) -> None:
        super().__init__(status)
        self.status, self.body, self.kind, self.repeat = status, body, kind, repeat
        self.session = session


def error(identity: Any, code: int, **data: Any) -> bytes:
    found = {"code": code, "message": "no", "data": data}
    return json.dumps({"jsonrpc": "2.0", "id": identity, "error": found}).encode()


class FakeServer:
    """Modern unless told otherwise: `FakeServer(era="2025-11-25")` opens with `initialize`."""

    def __init__(self, era: str = "2026-07-28") -> None:
        self.era = era
        self.tools: list[dict[str, Any]] = []
        self.page = 1000
        self.identity: Any = None
        """The id of the request that is being answered."""
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.forms: list[dict[str, str]] = []
        self.token: Callable[[dict[str, str]], Any] = lambda form: {}
        self.plan: dict[str, Answer] = {
            "server/discover": self._discover,
            "initialize": self._initialize,
            "notifications/initialized": lambda params, headers: None,
            "tools/list": self._list,
            "tools/call": lambda params, headers: {
                "content": [{"type": "text", "text": params["name"]}]
            },
        }

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.asked]

    def __enter__(self) -> FakeServer:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def log_message(self, *args: Any) -> None:
                """Silent."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                try:
                    if self.path == "/token":
                        form = dict(parse_qsl(body.decode()))
                        form["_authorization"] = headers.get("authorization", "")
                        fake.forms.append(form)
                        found = fake.token(form)
                        raise Say(200, json.dumps(found).encode())
                    message = json.loads(body)
                    params = message.get("params", {})
                    fake.identity = message.get("id")
                    fake.asked.append((message["method"], params, headers))
                    result = fake.plan[message["method"]](params, headers)
                    if "id" not in message:
                        raise Say(202)
                    answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
                    raise Say(200, json.dumps(answer).encode())
                except KeyError:
                    self.say(Say(404, error(message["id"], -32601)))
                except Say as say:
                    self.say(say)

            def say(self, say: Say) -> None:
                self.send_response(say.status)
                self.send_header("content-type", say.kind)
                self.send_header("content-length", str(len(say.body) * say.repeat))
                if say.session:
                    self.send_header("mcp-session-id", say.session)
                self.end_headers()
                try:
                    for _ in range(say.repeat):
                        self.wfile.write(say.body)
                except OSError:
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _discover(self, params: dict[str, Any], headers: dict[str, str]) -> Any:
        if self.era != "2026-07-28":
            raise Say(400, b"no session")
        return {"supportedVersions": [self.era], "capabilities": {"tools": {}}}

    def _initialize(self, params: dict[str, Any], headers: dict[str, str]) -> Any:
        return {"protocolVersion": self.era, "capabilities": {}, "serverInfo": {"name": "x"}}

    def _list(self, params: dict[str, Any], headers: dict[str, str]) -> Any:
        begin = int(params.get("cursor", 0))
        found: dict[str, Any] = {"tools": self.tools[begin : begin + self.page]}
        if begin + self.page < len(self.tools):
            found["nextCursor"] = str(begin + self.page)
        return found


def tool(name: str, description: str = "Does it.", **more: Any) -> dict[str, Any]:
    return {"name": name, "description": description, "inputSchema": {"type": "object"}, **more}
