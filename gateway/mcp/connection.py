"""What the two transports have in common, seen from the client of a tool server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from gateway.mcp.messages import load
from gateway.routing import Failure

LARGEST: Final = 8 * 1024 * 1024
"""Bytes of one answer; a server that sends more is not listened to any further."""
LIST_CHANGED: Final = "notifications/tools/list_changed"

OnNote: TypeAlias = Callable[[str], None]
"""Told the method of every notification."""


class Handshake(Exception):
    """The other side does not know us (any more): open again, then the message may be sent
    again, for it was not taken."""


class Rejected(Failure):
    """An HTTP status that says no, without a JSON-RPC error in its body."""

    def __init__(self, status: int, failure: Failure) -> None:
        super().__init__(
            failure.message,
            done=failure.done,
            code=failure.code,
            retry_after=failure.retry_after,
        )
        self.status = status


class NoAnswer(Failure):
    """The other side lives, and did not answer in time."""


class Connection(Protocol):
    """A way to one server. Handshakes are the client's (`client`): a connection only knows
    which `epoch` it is in, and a new epoch needs a new handshake."""

    epoch: int
    version: str | None
    """The revision that was agreed on; None before that."""
    one_channel: bool
    """Everything comes on one channel, so that listening to notifications costs nothing."""

    @property
    def ready(self) -> bool:
        """Is the epoch still good, as far as can be told without sending anything?"""

    async def start(self) -> None:
        """Be able to send. Raises Failure (not done), Refusal (a secret is missing)."""

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        seconds: float,
        headers: Mapping[str, str] = ...,
    ) -> dict[str, Any]:
        """The JSON-RPC response, result or error. Raises Failure, Handshake, Refusal."""

    async def tell(self, method: str, params: Mapping[str, Any]) -> None:
        """Send a notification."""

    async def close(self) -> None:
        """Let go of everything; a closed connection may be started again."""


def response(text: str, where: str) -> dict[str, Any]:
    """One JSON-RPC message. Raises Failure (done): nobody knows what the server did."""
    try:
        value = load(text)
    except ValueError:
        value = None
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise Failure(f"{where} did not answer with a JSON-RPC object", done=True)
    return value


def checked_response(value: Mapping[str, Any], identity: int, where: str) -> dict[str, Any]:
    """A response to request `identity`. Raises Failure (done) for anything else."""
    error = value.get("error")
    if value.get("id") != identity and not (value.get("id") is None and error is not None):
        raise Failure(f"{where} answered another request than was asked", done=True)
    if error is not None and not (isinstance(error, dict) and isinstance(error.get("code"), int)):
        raise Failure(f"{where} answered an error that is not one of JSON-RPC", done=True)
    if error is None and "result" not in value:
        raise Failure(f"{where} answered without a result", done=True)
    return dict(value)
