"""The story's outside world: a small issue tracker that speaks MCP over Streamable HTTP.

`python -m reconciler.demo.tracker --folder DIR --port 0` writes its port to `DIR/port` and every
change it carries out to `DIR/effects.jsonl`. It does not honour idempotency keys on purpose: if
the gateway sent a change twice, it would be there twice. While `DIR/broken` exists it fails.
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHANGES = [
    {"id": "CR-9", "title": "Reports: an invoice without a remark no longer ends the report"},
    {"id": "CR-11", "title": "Dates: the last day of a month belongs to it"},
    {"id": "CR-12", "title": "Money: half a cent is rounded the way the tax office does"},
]
TOOLS: dict[str, list[str]] = {
    "list_changes": ["project", "since"],
    "open_change": ["project", "title", "patch"],
    "save_draft": ["project", "text"],
    "delete_project": ["project"],
}


class Tracker:
    """What the tracker holds: a log of effects and two counters."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._numbers = itertools.count(17)
        self._requests = itertools.count(4411)

    def call(self, tool: str, arguments: dict[str, Any], key: str | None) -> tuple[str, bool]:
        """Carry a tool call out; (text, is it an error)."""
        with self._lock:
            if (self._folder / "broken").exists():
                return f"503 Service Unavailable (request req-{next(self._requests)})", True
            if tool == "list_changes":
                return json.dumps(CHANGES), False
            if tool not in TOOLS:
                return f"there is no tool {tool!r}", True
            number = f"CR-{next(self._numbers)}"
            line = {"tool": tool, "number": number, "key": key, "arguments": arguments}
            with (self._folder / "effects.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            return json.dumps({"id": number, "state": "open"}), False


class Handler(BaseHTTPRequestHandler):
    """One JSON-RPC message per POST."""

    protocol_version = "HTTP/1.1"
    tracker: Tracker

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Silent: the effects are the log."""

    def do_POST(self) -> None:
        """Answer initialize, tools/list and tools/call; accept notifications."""
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method, params = message.get("method"), message.get("params", {})
        if "id" not in message:
            self._send(202, b"")
            return
        result: dict[str, Any]
        if method == "initialize":
            result = {
                "protocolVersion": params.get("protocolVersion"),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "northwind-tracker", "version": "1"},
            }
        elif method == "tools/list":
            result = {
                "tools": [
                    {
                        "name": name,
                        "inputSchema": {
                            "type": "object",
                            "properties": {field: {"type": "string"} for field in fields},
                        },
                    }
                    for name, fields in TOOLS.items()
                ]
            }
        elif method == "tools/call":
            text, failed = self.tracker.call(
                params["name"], params.get("arguments", {}), self.headers.get("idempotency-key")
            )
            result = {"content": [{"type": "text", "text": text}], "isError": failed}
        else:
            result = {}
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        self._send(200, json.dumps(answer).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def effects(folder: Path) -> list[dict[str, Any]]:
    """What the tracker has carried out, in order."""
    path = folder / "effects.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    Handler.tracker = Tracker(given.folder)
    server = ThreadingHTTPServer(("127.0.0.1", given.port), Handler)
    (given.folder / "port").write_text(str(server.server_address[1]))
    server.serve_forever()


if __name__ == "__main__":
    main()
