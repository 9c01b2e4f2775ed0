"""A tool server that records what really happened: the witness for at-most-once.

`python -m tests.support.effects_server --port 0 --file F` speaks MCP over Streamable HTTP and
appends one JSON line to F for every request it gets and every effect it carries out. Prints
`{"port": N}` on stdout when it listens. Standard library only.

Tools (server name is the caller's choice):
  write     has an effect each time it is executed: {"text": ...}
  append    the same, declared idempotent by the tests' policy
  read      no effect; answers {"text": ...}
  whoami    answers with the request's headers (to see that secrets are scrubbed)

Flags
  --idempotency honour|ignore   honour: an `Idempotency-Key` seen before answers the first result
  --sse                         answer tools/call as an event stream
Faults, by the tool argument `fault`:
  error     a tool result with isError
  500|503|429|404 …  that HTTP status, before the effect
  stall     carry out the effect, then never answer
  stall-before  never answer, no effect
  drop      carry out the effect, then close the connection
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Recorder:
    """What happened, in a file that outlives every process under test."""

    def __init__(self, path: Path, *, honour: bool, sse: bool) -> None:
        self.path = path
        self.honour = honour
        self.sse = sse
        self.lock = threading.Lock()
        self.results: dict[str, Any] = {}
        self.sessions: set[str] = set()
        self.never = threading.Event()

    def note(self, **line: Any) -> None:
        with self.lock, self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class Handler(BaseHTTPRequestHandler):
    """One MCP message per POST."""

    protocol_version = "HTTP/1.1"
    recorder: Recorder

    def log_message(self, *args: Any) -> None:
        """Silent: the file is the log."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method = body.get("method")
        if method == "initialize":
            identity = f"session-{len(self.recorder.sessions)}"
            self.recorder.sessions.add(identity)
            self.recorder.note(event="initialize")
            version = body["params"]["protocolVersion"]
            info = {"name": "effects", "version": "1"}
            result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
            self._answer(body["id"], result, {"Mcp-Session-Id": identity})
        elif "id" not in body:
            self._status(202)
        elif self.headers.get("mcp-session-id") not in self.recorder.sessions:
            self._status(404)
        elif method == "tools/call":
            self._call(body["id"], body["params"])
        else:
            self._answer(body["id"], {"tools": []})

    def _call(self, identity: Any, params: dict[str, Any]) -> None:
        tool, arguments = params["name"], params.get("arguments", {})
        key = self.headers.get("idempotency-key")
        meta = params.get("_meta", {}).get("interlock/effect-key")
        fault = str(arguments.get("fault", ""))
        self.recorder.note(event="request", tool=tool, key=key, meta=meta, arguments=arguments)
        if fault.isdigit():
            self._status(int(fault))
            return
        if fault == "forget":
            self.recorder.sessions.clear()
            self._status(404)
            return
        if fault == "stall-before":
            self.recorder.never.wait()
        text = str(arguments.get("text", ""))
        if tool == "whoami":
            text = json.dumps(dict(self.headers.items()))
        elif tool != "read":
            with self.recorder.lock:
                known = self.recorder.results.get(key or "") if self.recorder.honour else None
            if known is None:
                self.recorder.note(event="effect", tool=tool, key=key, text=text)
            if key:
                self.recorder.results[key] = text
        if fault == "stall":
            self.recorder.never.wait()
        if fault == "drop":
            self.close_connection = True
            self.connection.close()
            return
        content = [{"type": "text", "text": text or "done"}]
        self._answer(identity, {"content": content, "isError": fault == "error"})

    def _answer(
        self, identity: Any, result: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        message = json.dumps({"jsonrpc": "2.0", "id": identity, "result": result})
        stream = self.recorder.sse and headers is None
        body = (f"event: message\ndata: {message}\n\n" if stream else message).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if stream else "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _status(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()


def effects(path: Path) -> list[dict[str, Any]]:
    """Effects that were carried out, in order."""
    return [line for line in lines(path) if line["event"] == "effect"]


def lines(path: Path) -> list[dict[str, Any]]:
    """Everything in the file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def main(arguments: list[str]) -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--idempotency", choices=("honour", "ignore"), default="ignore")
    parser.add_argument("--sse", action="store_true")
    given = parser.parse_args(arguments)
    recorder = Recorder(given.file, honour=given.idempotency == "honour", sse=given.sse)
    bound = type("Bound", (Handler,), {"recorder": recorder})
    server = ThreadingHTTPServer(("127.0.0.1", given.port), bound)
    server.daemon_threads = True
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
