"""The gateways that are measured: how each is started, who calls it, and what it takes.

Each is the only thing on its core. What cannot be installed or started is `Absent` and says why.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.gateway_bench.upstream import MARKER

ROOT = Path(__file__).parents[3]
INSTALLED = ROOT / ".cache" / "bench"
LOAD_CORE, GATEWAY_CORE = (sorted(os.sched_getaffinity(0)) * 2)[:2]
"""The load generator and the upstream share the first core; whatever is measured has the second."""
START_SECONDS = 120
TICKS = os.sysconf("SC_CLK_TCK")

MESSAGES = [
    {"role": "system", "content": "You repair what broke overnight. " + "Be exact. " * 20},
    {"role": "user", "content": "Two tests fail in northwind-billing since noon. " + "Why? " * 30},
]
"""About 500 bytes: a short conversation."""


class Absent(Exception):
    """A gateway that cannot be measured here; the text says why."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that answers Chat Completions at `port`; `heads` are the headers of its callers."""

    name: str
    port: int
    version: str
    command: str
    heads: tuple[Mapping[str, str], ...]
    model: str = "bench-1"
    pid: int | None = None
    """None: no gateway at all."""

    def requests(self, *, stream: bool) -> list[str]:
        """The bytes of one request for each caller, as text."""
        body: dict[str, Any] = {"model": self.model, "messages": MESSAGES, "max_tokens": 100}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return [self._request(head, json.dumps(body)) for head in self.heads]

    def _request(self, head: Mapping[str, str], body: str) -> str:
        lines = {
            "host": f"127.0.0.1:{self.port}",
            "content-type": "application/json",
            "content-length": str(len(body)),
            **head,
        }
        shown = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST /v1/chat/completions HTTP/1.1\r\n{shown}\r\n{body}"

    def post(self, messages: Sequence[Mapping[str, str]], caller: int = 0) -> int:
        """The status of one call."""
        body = {"model": self.model, "messages": messages, "max_tokens": 100}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json", **self.heads[caller]},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                text = response.read().decode()
                assert MARKER in text, f"{self.name} answered {text[:500]}"
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def cpu_seconds(self) -> float:
        """User and system time so far of the process and its children."""
        return sum(_ticks(pid) for pid in _tree(self.pid)) / TICKS

    def memory_bytes(self) -> int:
        """Resident memory of the process and its children."""
        return sum(_resident(pid) for pid in _tree(self.pid))


def _tree(pid: int | None) -> list[int]:
    if pid is None:
        return []
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _tree(int(child)))]


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def core_seconds(core: int) -> float:
    """How long a core has been busy so far, whoever it was."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _waiting, *others = map(int, ticks[:8])
            return (user + nice + system + sum(others)) / TICKS
    raise AssertionError(f"no core {core} in /proc/stat")


# --- processes


def pinned(core: int, *command: str) -> list[str]:
    """The command, kept on one core."""
    return ["taskset", "-c", str(core), *command]


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in `log`, ended in good order."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=out,
            stderr=out,
            env={"PATH": os.environ["PATH"], "HOME": str(log.parent), **(environment or {})},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def upstream() -> Iterator[Contender]:
    """The provider behind all gateways, and what is called when there is no gateway."""
    command = pinned(LOAD_CORE, sys.executable, "-m", "tests.benchmarks.gateway_bench.upstream")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            yield Contender("direct", port, "", shown(command), heads=({},))
        finally:
            process.terminate()


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answers(contender: Contender, process: subprocess.Popen[bytes], log: Path) -> Contender:
    """The contender, as soon as a call through it succeeds. Raises Absent when none does."""
    deadline = time.monotonic() + START_SECONDS
    status: int | str = "nothing"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            status = contender.post(MESSAGES)
        except OSError as error:
            status = str(error)
        if status == 200:
            return contender
        time.sleep(0.3)
    said = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise Absent(f"does not answer: {status}; {' '.join(said)[:200]}")


def shown(command: Sequence[str]) -> str:
    """A command as a person would type it in the checkout."""
    return shlex.join(command).replace(f"{ROOT}/", "")


# --- the others


def _absent(name: str) -> Absent:
    note = INSTALLED / f"{name}.missing"
    return Absent(
        note.read_text().strip() if note.exists() else f"not installed; run .ci/bench.sh {name}"
    )


def _pinned_version(name: str) -> str:
    """What .ci/bench.sh installed. Raises Absent."""
    stamp = INSTALLED / name / "stamp"
    if not stamp.exists():
        raise _absent(name)
    return stamp.read_text().strip()


NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log error;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  upstream provider {{
    server 127.0.0.1:{upstream};
    keepalive 128;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, upstream_port: int) -> Iterator[Contender]:
    """A plain reverse proxy: one worker, keep-alive to the upstream, no log."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise _absent("nginx")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, upstream=upstream_port, port=port))
    # Started by root it would change its worker to `nobody`, who may not write into the folder.
    user = ["-g", "user root;"] if os.getuid() == 0 else []
    command = pinned(GATEWAY_CORE, program, "-c", str(config), *user)
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    log = folder / "nginx.out"
    with running(command, log) as process:
        contender = Contender(
            "nginx",
            port,
            said.strip().rpartition("/")[2],
            shown(command),
            heads=({},),
            pid=process.pid,
        )
        yield answers(contender, process, log)


@contextlib.contextmanager
def litellm(folder: Path, upstream_port: int) -> Iterator[Contender]:
    """Its proxy with a master key; no database, so no budget and no log of calls."""
    version = _pinned_version("litellm")
    program = INSTALLED / "litellm" / "bin" / "litellm"
    model = {
        "model": "openai/bench-1",
        "api_base": f"http://127.0.0.1:{upstream_port}/v1",
        "api_key": "sk-upstream",
    }
    config = {
        "model_list": [{"model_name": "bench-1", "litellm_params": model}],
        "general_settings": {"master_key": "sk-bench"},
        "litellm_settings": {"telemetry": False, "num_retries": 0},
    }
    file = folder / "litellm.json"
    file.write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = pinned(
        GATEWAY_CORE,
        *(str(program), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", "1", "--telemetry", "False"),
    )
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "NO_PROXY": "127.0.0.1",
    }
    log = folder / "litellm.out"
    with running(command, log, environment) as process:
        contender = Contender(
            "LiteLLM",
            port,
            version,
            shown(command),
            heads=({"authorization": "Bearer sk-bench"},),
            pid=process.pid,
        )
        yield answers(contender, process, log)


@contextlib.contextmanager
def portkey(folder: Path, upstream_port: int) -> Iterator[Contender]:
    """Its open-source gateway: it checks no key of its own, and has no budget and no log."""
    version = _pinned_version("portkey")
    package = INSTALLED / "portkey" / "node_modules" / "@portkey-ai" / "gateway"
    script = package / "build" / "start-server.js"
    port = free_port()
    command = pinned(GATEWAY_CORE, "node", str(script), "--headless", f"--port={port}")
    head = {
        "authorization": "Bearer sk-upstream",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1",
    }
    log = folder / "portkey.out"
    with running(command, log, {"NODE_ENV": "production"}) as process:
        contender = Contender(
            "Portkey",
            port,
            version,
            shown(command),
            heads=(head,),
            pid=process.pid,
        )
        yield answers(contender, process, log)
