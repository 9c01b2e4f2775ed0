"""What tools a server has now, and how they are described: asked of the gateway.

Only the gateway can tell, because only it has the servers' keys. It is asked through its control
socket, which is for this user alone.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.process.lock import sole
from reconciler.process.supervisor import gateway_only, gateway_url

CONTROL = "gateway-control.sock"
PATIENCE_S = 60.0
"""A server that is a command is started for this, and may have to be fetched first."""


class NotTold(Exception):
    """The gateway could not say which tools a server has; the text says why."""


@contextmanager
def some_gateway(state: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """The gateway that runs in this state directory; else one for the time of the block.

    Raises Busy when another reconciler begins or ends there, EnvironmentLacks when none starts.
    """
    if gateway_url(state) is not None:
        yield
        return
    with sole(state, "other"), gateway_only(state, environment):
        yield


def catalogues(state: Path, servers: Iterable[str]) -> dict[str, dict[str, str] | str]:
    """Server → its tools with their fingerprints, or why they could not be had."""
    found: dict[str, dict[str, str] | str] = {}
    for server in servers:
        try:
            found[server] = catalogue(state, server)
        except NotTold as error:
            found[server] = str(error)
    return found


def catalogue(state: Path, server: str) -> dict[str, str]:
    """Tool → fingerprint, as the server describes its tools now. Raises NotTold."""
    try:
        status, body = _post(state, "/catalogue", {"server": server})
        told = json.loads(body)
        if status == 200:
            return {str(tool["name"]): str(tool["fingerprint"]) for tool in told["tools"]}
    except (OSError, http.client.HTTPException) as error:
        raise NotTold(f"the gateway's control socket does not answer: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NotTold(f"what the gateway answers is no catalogue ({error})") from error
    if status == 404:
        raise NotTold(
            "the gateway does not know it: what it knows is what is in force "
            "(`interlock reconcile --once`)"
        )
    refused = told.get("error") if isinstance(told, dict) else None
    said = refused.get("message") if isinstance(refused, dict) else refused
    raise NotTold(str(said or f"the gateway answers {status}"))


def _post(state: Path, path: str, document: Mapping[str, Any]) -> tuple[int, bytes]:
    connection = _Control(state)
    try:
        body = json.dumps(document)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class _Control(http.client.HTTPConnection):
    """HTTP over the control socket of a state directory."""

    def __init__(self, state: Path) -> None:
        super().__init__("gateway", timeout=PATIENCE_S)
        self._state = state

    def connect(self) -> None:
        # Through the folder's descriptor: a socket's own path may have only 107 bytes.
        folder = os.open(self._state, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(PATIENCE_S)
            self.sock.connect(f"/proc/self/fd/{folder}/{CONTROL}")
        finally:
            os.close(folder)
