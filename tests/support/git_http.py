"""A real git server over HTTP for tests: `git http-backend` behind a small threaded HTTP server.

Nothing of git is imitated: packs, ref locks and hooks are git's own. What can be switched is what
goes wrong around it (`Fault`), because those are the cases a reconciler must survive.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class Fault(Enum):
    """What goes wrong. HANG holds a request until `GitServer.release` or the end of the test."""

    NONE = "none"
    ERROR_500 = "500"
    HANG = "hang"
    HANG_ON_PUSH = "hang when a pack is sent"
    LOSE_REPLY_OF_PUSH = "apply the push, then drop the connection without an answer"
    DROP_ON_PUSH = "drop the connection when a pack is sent, applying nothing"


class GitServer:
    """Serves every repository below `root` at `url`/<name>, with pushes allowed.

    `password`, when set, is asked for (any user name). `down()` refuses connections until `up()`
    on the same port. `seen` lists "METHOD path" of the requests, in order of arrival.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fault = Fault.NONE
        self.password: str | None = None
        self.seen: list[str] = []
        self.authorizations: list[str] = []
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        served = self

        class Handler(_Handler):
            git = served

        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def down(self) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = None

    def release(self) -> None:
        """Let go of the requests that hang; later ones hang again."""
        self._released.set()
        self._released = threading.Event()

    def wait_released(self) -> None:
        self._released.wait()

    def close(self) -> None:
        self.fault = Fault.NONE
        self._released.set()
        if self._server is not None:
            self.down()

    def create(self, name: str) -> str:
        """A new bare repository that accepts pushes; its URL."""
        path = self.root / name
        run = ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)]
        subprocess.run(run, check=True)
        config = ["git", "-C", str(path), "config", "http.receivepack", "true"]
        subprocess.run(config, check=True)
        return f"{self.url}/{name}"

    def hook(self, name: str, kind: str, script: str) -> None:
        """Install a hook (`pre-receive`, `update`, …) as a shell script; "" removes it."""
        install_hook(self.root / name, kind, script)


def install_hook(repository: Path, kind: str, script: str) -> None:
    """Write a bare repository's hook; an empty script removes it."""
    hook = repository / "hooks" / kind
    hook.unlink(missing_ok=True)
    if script:
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{script}\n")
        hook.chmod(0o755)


@contextmanager
def git_server(root: Path) -> Iterator[GitServer]:
    """A running server for the length of a test."""
    server = GitServer(root)
    try:
        yield server
    finally:
        server.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed or gave up resets its connection: that is what is tested."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    git: GitServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (stdlib's name)
        """Quiet: tests look at `seen`."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        server = self.git
        server.seen.append(f"{self.command} {self.path}")
        body = self._body()
        authorization = self.headers.get("Authorization", "")
        if authorization:
            server.authorizations.append(authorization)
        fault = server.fault
        pushing = self.command == "POST" and self.path.endswith("/git-receive-pack")
        if fault is Fault.HANG or (fault is Fault.HANG_ON_PUSH and pushing):
            server.wait_released()
            return self._drop()
        if fault is Fault.DROP_ON_PUSH and pushing:
            return self._drop()
        if fault is Fault.ERROR_500:
            return self._answer(500, {}, b"out of order")
        if server.password is not None and not self._knows(server.password):
            challenge = {"WWW-Authenticate": 'Basic realm="git"'}
            return self._answer(401, challenge, b"who are you?")
        status, headers, content = self._run_backend(body)
        if fault is Fault.LOSE_REPLY_OF_PUSH and pushing:
            return self._drop()
        return self._answer(status, headers, content)

    def _knows(self, password: str) -> bool:
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        return base64.b64decode(value).decode().partition(":")[2] == password

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks: list[bytes] = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _run_backend(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(self.path)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "GIT_PROJECT_ROOT": str(self.git.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_USER": "tester",
            "REMOTE_ADDR": "127.0.0.1",
        }
        for header, name in (
            ("Content-Encoding", "HTTP_CONTENT_ENCODING"),
            ("Git-Protocol", "GIT_PROTOCOL"),
        ):
            if self.headers.get(header):
                environment[name] = self.headers[header]
        done = subprocess.run(
            ["git", "http-backend"], input=body, capture_output=True, env=environment, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers: dict[str, str] = {}
        for line in head.decode().splitlines():
            name, _, value = line.partition(": ")
            headers[name] = value
        status = int(headers.pop("Status", "200").split()[0])
        return status, headers, content

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _drop(self) -> None:
        self.close_connection = True
