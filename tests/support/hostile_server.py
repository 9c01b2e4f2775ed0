"""A tool server on stdio that misbehaves as its argument says. Standard library only.

It speaks 2025-11-25 well enough to be opened and listed, and answers `tools/call` so:

  well        as it should, after some lines of garbage and a banner
  silent      never                      deaf     answers nothing at all, not even the opening
  wrong-id    with ids nobody gave       result   with a result that is none
  flood       with lines without end     long     with one line without end
  dies        by ending, with its secret on standard error
  start       ends before it reads anything
  child       by starting a child that sleeps, and naming it
  daemon      the same, and the child leaves the process group
  limits      with what it may use, and what it can see
  asks        first with requests of its own: a ping, and one that nobody declared
  changed     first with a notification that its list of tools has changed
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MODE = sys.argv[1]


def say(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def status(field: str) -> str:
    with Path("/proc/self/status").open() as file:
        return next(line.split()[1] for line in file if line.startswith(field))


def limits() -> dict[str, Any]:
    names = ("DATA", "NOFILE", "NPROC", "FSIZE", "CORE", "CPU")
    return {
        **{name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in names},
        "pid": os.getpid(),
        "no_new_privs": status("NoNewPrivs"),
        "leader": os.getsid(0) == os.getpid() == os.getpgrp(),
        "files": sorted(int(fd.name) for fd in Path("/proc/self/fd").iterdir())[:-1],
        "environment": sorted(os.environ),
        "home": os.environ["HOME"],
        "cwd": str(Path.cwd()),
        "umask": os.umask(0),
    }


def call(identity: Any, params: dict[str, Any]) -> None:
    text = params["arguments"].get("text", "well")
    if MODE == "silent" or text == "wait":
        return
    if MODE == "wrong-id":
        say(id=identity + 1000, result={"content": []})
        say(id=str(identity), result={"content": []})
        return
    if MODE == "flood":
        while True:
            say(method="notifications/progress", params={})
    if MODE == "long":
        while True:
            sys.stdout.write("x" * 65_536)
    if MODE == "dies":
        sys.stderr.write(f"fatal\x1b[31m: {os.environ.get('TOKEN')}\n")
        sys.stderr.flush()
        os._exit(7)
    if MODE == "child":
        child = subprocess.Popen(["sleep", "1000"])
        text = str(child.pid)
    if MODE == "daemon":
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        text = str(child.pid)
    if MODE == "limits":
        text = json.dumps(limits())
    if MODE == "changed":
        say(method="notifications/tools/list_changed")
    if MODE == "asks":
        say(id="a", method="ping")
        say(id="b", method="sampling/createMessage", params={})
        answers = [json.loads(sys.stdin.readline()) for _ in range(2)]
        text = json.dumps(answers)
    if MODE == "result":
        say(id=identity, result=text)
        return
    if text == "token":
        text = os.environ["TOKEN"]
    say(id=identity, result={"content": [{"type": "text", "text": text}]})


if MODE == "start":
    sys.exit("no configuration found")
if MODE == "well":
    print("Welcome to the server!\n[1, 2]\n{}\n\xff\n")
lists = 0
for line in sys.stdin:
    message = json.loads(line)
    identity, method = message.get("id"), message["method"]
    if MODE == "deaf":
        time.sleep(1000)
    if method == "notifications/cancelled":
        with Path(os.environ["NOTES"]).open("a") as notes:
            notes.write(line)
    elif identity is None:
        continue
    elif method == "initialize":
        info = {"name": "hostile", "version": "1"}
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info}
        say(id=identity, result=result)
    elif method == "tools/list":
        lists += 1
        words = "Changed." if MODE == "changed" and lists > 1 else "Does it."
        tool = {"name": "do", "description": words, "inputSchema": {"type": "object"}}
        say(id=identity, result={"tools": [tool]})
    elif method == "tools/call":
        call(identity, message["params"])
    else:
        say(id=identity, error={"code": -32601, "message": "no such method"})
