"""The endpoints that callers see: routes, credentials, headers, dialects.

A listener that stands for one principal (a run's socket) has fixed who is calling before any header
is read (`Exchange.principal`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping

from gateway.app.credentials import credential, head
from gateway.app.exchange import Exchange, as_json
from gateway.app.headers import figures, known
from gateway.app.tools import ARTIFACTS, ToolFace
from gateway.door import Door
from gateway.live import Finished, LiveCall
from gateway.log import Log, place
from gateway.mcp import server
from gateway.policy import Api
from gateway.providers import stored
from gateway.providers.asked import Asked
from gateway.providers.dialects import anthropic, openai
from gateway.providers.stored import Frame
from gateway.refusals import Code, Refusal
from gateway.telemetry import CONTENT_TYPE, Telemetry
from gateway.values import Clock

APIS: Mapping[str, Api] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/messages": "messages",
}
Reply = Callable[[Exchange], Awaitable[None]]


class GatewayApp:
    """One app for every listener. `ready` tells why the gateway cannot serve, or None."""

    def __init__(
        self,
        door: Door,
        clock: Clock,
        log: Log,
        telemetry: Telemetry,
        ready: Callable[[], str | None],
    ) -> None:
        self._telemetry = telemetry
        self._door = door
        self._clock = clock
        self._log = log
        self._ready = ready
        self._tools = ToolFace(door, self._end)
        self._routes: Mapping[tuple[str, str], Reply] = {
            **{("POST", path): self._model for path in APIS},
            ("POST", anthropic.COUNT_PATH): self._count,
            ("GET", "/v1/models"): self._models,
            ("GET", "/healthz"): self._alive,
            ("HEAD", "/"): self._alive,
            ("GET", "/readyz"): self._readiness,
            ("GET", "/metrics"): self._metrics,
        }

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request, whatever happens."""
        route = self._routes.get((exchange.method, exchange.path))
        if route is None and exchange.path == "/mcp":
            route = self._tools.answer
        elif route is None and exchange.path.startswith(ARTIFACTS) and exchange.method == "GET":
            route = self._tools.artifact
        try:
            if exchange.refused is not None:
                raise exchange.refused
            if route is None:
                raise Refusal(
                    Code.NOT_FOUND, f"no endpoint {exchange.method} {exchange.path[:200]}"
                )
            await route(exchange)
        except Refusal as refusal:
            self._refuse(exchange, refusal)
        except RecursionError:
            self._refuse(
                exchange, Refusal(Code.INVALID_REQUEST, "the request is nested too deeply")
            )
        except Exception as error:
            # The text of an exception may quote a request; its kind and the call are enough.
            self._log.write(
                "fault", path=exchange.path, kind=type(error).__name__, where=place(error)
            )
            self._refuse(exchange, Refusal(Code.INTERNAL_ERROR, "a fault of the gateway"))

    async def _alive(self, exchange: Exchange) -> None:
        exchange.respond(200, b'{"status": "ok"}')

    async def _metrics(self, exchange: Exchange) -> None:
        # In a thread: thousands of series take a tenth of a second to write.
        text = await asyncio.to_thread(self._telemetry.metrics)
        exchange.respond(200, text, content_type=CONTENT_TYPE.encode())

    async def _readiness(self, exchange: Exchange) -> None:
        why = self._ready()
        exchange.respond(200 if why is None else 503, as_json({"status": why or "ready"}))

    # --- models ---------------------------------------------------------------------------

    async def _model(self, exchange: Exchange) -> None:
        caller = credential(exchange)
        asked = Asked.read(APIS[exchange.path], exchange.body, exchange.header(b"anthropic-beta"))
        call = await self._door.model(caller, asked, head(exchange))
        if asked.stream:
            await self._stream(exchange, asked, call)
            return
        end = await self._end(call)
        body = end.body
        if call.streams:
            # The call was begun for a client that streams; this one wants the whole of it.
            body = stored.again(asked, end.stored, self._frame(call, asked))[1].body
        exchange.respond(200, body, {**known(call), **figures(end)})

    async def _count(self, exchange: Exchange) -> None:
        asked = Asked.read("messages", exchange.body, exchange.header(b"anthropic-beta"))
        tokens = await self._door.count_tokens(credential(exchange), asked)
        exchange.respond(200, as_json(anthropic.count_answer(tokens)))

    async def _stream(self, exchange: Exchange, asked: Asked, call: LiveCall) -> None:
        try:
            await call.begun()
        except Refusal as refusal:
            self._refused(call, refusal)
            raise _of(call, refusal) from None
        exchange.begin(
            200,
            {**known(call), b"cache-control": b"no-cache"},
            content_type=b"text/event-stream; charset=utf-8",
        )
        if call.streams:
            call.follow(exchange.write)
        try:
            end = await self._end(call)
        except Refusal as refusal:
            exchange.end(stored.broken(asked, refusal, self._frame(call, asked)))
            return
        tail = end.tail
        if not call.streams:
            pieces, last = stored.again(asked, end.stored, self._frame(call, asked))
            tail = b"".join(piece.data for piece in pieces) + last.tail
        exchange.end(tail + _comment(call, end))

    def _refused(self, call: LiveCall, refusal: Refusal) -> None:
        self._log.refused(call, refusal)
        self._door.books.refused("model" if call.api else "tool", call, refusal)

    def _frame(self, call: LiveCall, asked: Asked) -> Frame:
        return Frame.of(call.key, asked.model, self._clock.now())

    async def _end(self, call: LiveCall) -> Finished:
        try:
            end = await call.finished()
        except Refusal as refusal:
            self._refused(call, refusal)
            raise _of(call, refusal) from None
        self._log.answered(call, end)
        return end

    async def _models(self, exchange: Exchange) -> None:
        standing, policy = self._door.caller(credential(exchange))
        names = [n for n in sorted(standing.grants.models) if policy.policy.targets(n)]
        # One shape that both SDKs read: OpenAI's `object`/`created`, Anthropic's `type`/….
        listed = {
            "object": "list",
            "data": [
                {
                    "id": name,
                    "object": "model",
                    "type": "model",
                    "created": 0,
                    "created_at": "1970-01-01T00:00:00Z",
                    "display_name": name,
                    "owned_by": "interlock",
                }
                for name in names
            ],
            "has_more": False,
            "first_id": names[0] if names else None,
            "last_id": names[-1] if names else None,
        }
        exchange.respond(200, as_json(listed))

    # --- refusals -------------------------------------------------------------------------

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        if "call_key" not in refusal.facts:
            self._log.write("refused", path=exchange.path[:200], code=str(refusal.code))
            self._door.books.refused("tool" if exchange.path == "/mcp" else "model", None, refusal)
        headers: dict[bytes, bytes] = {} if refusal.retryable else {b"x-should-retry": b"false"}
        if "retry_after" in refusal.facts:
            headers[b"retry-after"] = str(refusal.facts["retry_after"]).encode()
        if "call_key" in refusal.facts:
            headers[b"X-Interlock-Call-Key"] = str(refusal.facts["call_key"]).encode()
        if exchange.begun:
            exchange.abort()
            return
        if exchange.path == "/mcp":
            said = server.refused(None, refusal)
        else:
            said = (anthropic if _is_anthropic(exchange) else openai).error(refusal)
        exchange.respond(refusal.status, as_json(said), headers)


def _is_anthropic(exchange: Exchange) -> bool:
    return exchange.path.startswith(anthropic.PATH) or b"anthropic-version" in exchange.headers


def _of(call: LiveCall, refusal: Refusal) -> Refusal:
    """The same refusal, with the key of the call it is about."""
    return Refusal(refusal.code, refusal.message, **{"call_key": str(call.key), **refusal.facts})


def _comment(call: LiveCall, end: Finished) -> bytes:
    """The figures of a stream, as an SSE comment: its head was sent before they were known."""
    figures = {
        "call_key": str(call.key),
        "cost_nano": end.cost_nano,
        "input_tokens": end.input_tokens,
        "output_tokens": end.output_tokens,
        "label": str(call.label),
        "model": call.target,
        "replayed": end.replayed,
        "cached": end.cached,
    }
    return f": interlock {json.dumps(figures, separators=(',', ':'))}\n\n".encode()
