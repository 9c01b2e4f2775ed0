"""Everything a test of the gateway needs around it: state, process, provider, tool server."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gateway import access, schema
from gateway.database import Database, Row
from gateway.policy import (
    AgentPolicy,
    Grants,
    Model,
    Policy,
    Price,
    Provider,
    Rule,
    Script,
    ScriptedCall,
    ToolGrant,
    When,
)
from gateway.values import (
    AgentName,
    Millis,
    NanoUSD,
    Occurrence,
    Principal,
    Purpose,
    ReleaseDigest,
    RunId,
    TeamName,
)

ROOT = Path(__file__).parents[2]
NOW = Millis(1_763_000_000_000)
FAR = Millis(4_000_000_000_000)
KEY = "sk-live-VERYSECRETKEY1234567890"
TOOL_KEY = "tool-SECRETTOKEN-0987654321"
SCRIPT = Script(
    rules=(
        Rule(name="done", when=When(last="sunny in (?P<city>\\w+)"), say="Fine in {city}."),
        Rule(
            name="ask",
            when=When(first=True, user="weather in (?P<city>\\w+)"),
            say="I look.",
            call=ScriptedCall(tool="weather", args={"city": "{city}", "code": "{x: 1}"}),
        ),
        Rule(name="hello", when=When(user="hello"), say="Hello to you too, this is a longer text."),
    )
)


def principal(run: str = "run-1", **changes: Any) -> Principal:
    """A live principal of agent `triage`, role `main`."""
    values: dict[str, Any] = {
        "run": RunId(run),
        "agent": AgentName("triage"),
        "team": TeamName("platform"),
        "role": "main",
        "release": ReleaseDigest("rel-000000000001"),
        "purpose": Purpose.LIVE,
        "occurrence": Occurrence("manual:1"),
    }
    return Principal(**{**values, **changes})


def grants(**changes: Any) -> Grants:
    """Everything the stage offers."""
    values: dict[str, Any] = {
        "models": ("fast", "smart", "claude", "gpt", "second", "gone", "alone"),
        "tools": {f"effects.{name}": ToolGrant() for name in ("write", "append", "read", "whoami")},
    }
    return Grants(**{**values, **changes})


def policy(**changes: Any) -> Policy:
    """A policy whose `fast` is scripted and priced; tests add what they are about."""
    values: dict[str, Any] = {
        "providers": {"script": Provider(kind="scripted", script=SCRIPT)},
        "models": {
            "fast": Model(
                provider="script",
                id="scripted",
                price=Price(input=NanoUSD(10), output=NanoUSD(100)),
            )
        },
    }
    return Policy(**{**values, **changes})


def ceiling(**changes: Any) -> AgentPolicy:
    """What the watched branch allows `triage`: everything the stage offers, unless changed."""
    return AgentPolicy(team="platform", roles={"main": grants(**changes)})


@dataclass
class Answer:
    """An HTTP response, read whole."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code, whichever dialect it came in."""
        return str(self.json()["error"]["code"])


@dataclass
class Stage:
    """A state directory and, once started, the gateway process that serves it."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None
    ready: dict[str, Any] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Stage:
        self.state = self.directory / "state"
        self.log = self.directory / "gateway.log"
        self.database = Database(self.state / "interlock.sqlite")
        self.database.migrate(schema.MIGRATIONS)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.stack.close()
        self.database.close()

    # --- what other processes do through the database

    def publish(self, new: Policy, agents: Mapping[str, AgentPolicy] | None = None) -> str:
        """The policy, and the ceilings of these agents (of `triage` when none are given)."""
        given = {"triage": ceiling()} if agents is None else agents
        with self.database.transaction() as tx:
            access.drop_ceilings(tx, access.with_ceiling(tx) - set(given))
            access.put_ceilings(tx, {AgentName(name): each for name, each in given.items()})
            return access.publish(tx, new, now=NOW)

    def issue(
        self,
        who: Principal | None = None,
        granted: Grants | None = None,
        recorded: list[dict[str, Any]] | None = None,
        token: str = "token-of-run-1",
    ) -> str:
        with self.database.transaction() as tx:
            return access.issue(
                tx,
                who or principal(),
                granted or grants(),
                recorded,
                token=token,
                now=NOW,
                expires_at=FAR,
            )

    def revoke(self, run: str, why: str = "harm seen in the canary") -> None:
        with self.database.transaction() as tx:
            access.revoke(tx, run=RunId(run), why=why, now=NOW)

    def rows(self) -> list[Row]:
        return self.database.read("SELECT * FROM calls ORDER BY reserved_at, run, step, attempt")

    # --- the process

    def start(self, *arguments: str, **environment: str) -> Stage:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "--state", str(self.state), *arguments],
                cwd=ROOT,
                stderr=subprocess.PIPE,
                env={"PATH": os.environ["PATH"], **environment},
            )
            for line in self.process.stderr or ():
                log.write(line)
                log.flush()
                if json.loads(line)["event"] == "ready":
                    break
            else:
                raise AssertionError(self.log.read_text())
        self.ready = json.loads((self.state / "gateway.json").read_text())
        # From here on a thread keeps the log, so that the pipe never fills.
        threading.Thread(target=self._drain, args=(self.process,), daemon=True).start()
        return self

    def _drain(self, process: subprocess.Popen[bytes]) -> None:
        with self.log.open("ab") as log:
            for line in process.stderr or ():
                log.write(line)
                log.flush()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    # --- a client that hides nothing

    def post(
        self,
        path: str,
        body: Any,
        *,
        token: str | None = "token-of-run-1",
        key: str | None = None,
        **headers: str,
    ) -> Answer:
        sent = {"content-type": "application/json", **headers}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        if key is not None:
            sent["x-interlock-call-key"] = key
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.ready["url"] + path, data=data, headers=sent)
        return _open(request)

    def get(self, path: str, token: str | None = "token-of-run-1") -> Answer:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return _open(urllib.request.Request(self.ready["url"] + path, headers=headers))

    def chat(self, text: str = "hello", model: str = "fast", **more: Any) -> Answer:
        options = {k: more.pop(k) for k in ("token", "key") if k in more}
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return self.post("/v1/chat/completions", body, **options)

    def tool(self, name: str, key: str | None = None, **arguments: Any) -> Answer:
        token = arguments.pop("token", "token-of-run-1")
        params = {"name": f"effects__{name}", "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return self.post("/mcp", body, key=key, token=token)

    def effects_server(self, *arguments: str) -> tuple[str, Path]:
        """Start the recording tool server; its address and its file."""
        file = self.directory / "effects.jsonl"
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.effects_server",
                "--file",
                str(file),
                *arguments,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        self.stack.callback(process.stdout.close)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        port = json.loads(process.stdout.readline())["port"]
        return f"http://127.0.0.1:{port}/mcp", file


def _open(request: urllib.request.Request) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, however long its path."""

    def __init__(self, path: Path) -> None:
        super().__init__("gateway", timeout=60)
        self._path = path

    def connect(self) -> None:
        handle = os.open(self._path.parent, os.O_RDONLY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(60)
            self.sock.connect(f"/proc/self/fd/{handle}/{self._path.name}")
        finally:
            os.close(handle)


def over_socket(
    path: Path, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request over a Unix socket."""
    connection = UnixConnection(path)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, target, data, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class FakeProvider:
    """A provider on a real port. `plan` holds what to answer next; every request is kept.

    A plan entry is bytes (a whole SSE body), an int (an HTTP status), or a callable taking the
    handler. An empty plan answers `text`.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.plan: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.arrived: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.release = threading.Event()

    def __enter__(self) -> FakeProvider:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                """Silent."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {k.lower(): v for k, v in self.headers.items()}
                fake.requests.append((self.path, headers, body))
                fake.arrived.put(None)
                try:
                    step = fake.plan.get_nowait()
                except queue.Empty:
                    step = openai_text("Hi!") if "chat" in self.path else anthropic_text("Hi!")
                if callable(step):
                    step(self)
                elif isinstance(step, int):
                    message = f"bad {headers.get('authorization', headers.get('x-api-key'))}"
                    self.say(step, json.dumps({"error": {"message": message}}).encode())
                else:
                    self.say(200, step, "text/event-stream")

            def say(self, status: int, body: bytes, kind: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                if status == 429:
                    self.send_header("retry-after", "7")
                self.end_headers()
                self.wfile.write(body)

            def begin(self, body: bytes) -> None:
                """Start a stream that is not finished yet."""
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()
                self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


def sse(*events: Any) -> bytes:
    """Server-sent events, Anthropic's with their names."""
    out = b""
    for event in events:
        name = f"event: {event['type']}\n" if isinstance(event, dict) and "type" in event else ""
        data = event if isinstance(event, str) else json.dumps(event)
        out += f"{name}data: {data}\n\n".encode()
    return out


def openai_text(text: str, usage: tuple[int, int] | None = (12, 3)) -> bytes:
    """A whole OpenAI stream."""
    return sse(*openai_events(text, usage))


def openai_events(text: str, usage: tuple[int, int] | None = (12, 3)) -> list[Any]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    stop = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events: list[Any] = [{"choices": [choice]}, {"choices": [stop]}]
    if usage is not None:
        numbers = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
        events.append({"choices": [], "usage": numbers})
    return [*events, "[DONE]"]


def openai_tool(name: str, *fragments: str) -> bytes:
    """A whole OpenAI stream that calls a tool."""

    def part(**call: Any) -> dict[str, Any]:
        delta = {"tool_calls": [{"index": 0, **call}]}
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    return sse(
        part(id="call_abc", type="function", function={"name": name, "arguments": ""}),
        *(part(function={"arguments": fragment}) for fragment in fragments),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 9}},
        "[DONE]",
    )


def anthropic_text(text: str) -> bytes:
    """A whole Anthropic stream."""
    return sse(
        {"type": "message_start", "message": {"usage": {"input_tokens": 12, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": text},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 3},
        },
        {"type": "message_stop"},
    )


def anthropic_tool(name: str, *fragments: str) -> bytes:
    """A whole Anthropic stream that calls a tool."""
    block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}
    return sse(
        {"type": "message_start", "message": {"usage": {"input_tokens": 20}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": fragment},
            }
            for fragment in fragments
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use"},
            "usage": {"output_tokens": 9},
        },
        {"type": "message_stop"},
    )
