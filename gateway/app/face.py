"""The endpoints that callers see: routes, credentials, headers, dialects.

`GatewayApp` is an ASGI application. A listener that stands for one principal (a run's socket)
calls it through `for_principal`, which fixes who is calling before any header is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

from gateway import access
from gateway.app import exchange
from gateway.app.exchange import Receive, Scope, Send
from gateway.door import Door
from gateway.live import Finished, LiveCall
from gateway.log import Log, place
from gateway.mcp import catalogue, server
from gateway.providers.conversation import Reply
from gateway.providers.dialects import anthropic, fields, openai
from gateway.refusals import Code, Refusal
from gateway.values import Clock

PRINCIPAL = "interlock.token_hash"
STREAM_KEYS = ("stream", "stream_options")
"""Left out of the request's hash: streaming or not, it is the same request."""


class GatewayApp:
    """One ASGI app for every listener. `ready` tells why the gateway cannot serve, or None."""

    def __init__(self, door: Door, clock: Clock, log: Log, ready: Callable[[], str | None]) -> None:
        self._door = door
        self._clock = clock
        self._log = log
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        dialect: ModuleType = anthropic if _is_anthropic(scope) else openai
        try:
            if path == openai.PATH and method == "POST":
                await self._model(openai, scope, receive, send)
            elif path == anthropic.PATH and method == "POST":
                await self._model(anthropic, scope, receive, send)
            elif path == "/mcp":
                await self._mcp(scope, receive, send)
            elif path == "/v1/models" and method == "GET":
                await exchange.respond(send, 200, self._models(scope))
            elif path == "/healthz" or (path == "/" and method == "HEAD"):
                await exchange.respond(send, 200, {"status": "ok"})
            elif path == "/readyz":
                why = self._ready()
                status = "ready" if why is None else why
                await exchange.respond(send, 200 if why is None else 503, {"status": status})
            else:
                raise Refusal(Code.NOT_FOUND, f"no endpoint {method} {path}")
        except Refusal as refusal:
            await self._refuse(dialect, scope, send, refusal)
        except ConnectionResetError:
            return
        except Exception as error:
            # The text of an exception may quote a request; its kind and the call are enough.
            self._log.write("fault", path=path, kind=type(error).__name__, where=place(error))
            fault = Refusal(Code.INTERNAL_ERROR, "a fault of the gateway")
            await self._refuse(dialect, scope, send, fault)

    # --- models ---------------------------------------------------------------------------

    async def _model(self, dialect: ModuleType, scope: Scope, receive: Receive, send: Send) -> None:
        caller = _credential(scope)
        body = fields.document(await exchange.read_body(receive))
        request = dialect.read(body)
        asked = {key: value for key, value in body.items() if key not in STREAM_KEYS}
        call = await self._door.model(
            caller,
            request,
            request_hash=_hash([dialect.PATH, asked]),
            key=exchange.header(scope, b"x-interlock-call-key"),
        )
        frame = {
            "model": request.model,
            "identity": _hash(str(call.key))[:24],
            "seconds": self._clock.now() // 1000,
        }
        if body.get("stream"):
            options = body.get("stream_options")
            usage = bool(isinstance(options, dict) and options.get("include_usage"))
            await self._stream(dialect.Writer(**frame, with_usage=usage), call, send)
            return
        end = await self._end(call)
        reply = dialect.answer(_reply(end.response), **frame)
        await exchange.respond(send, 200, reply, {**_known(call), **_figures(end)})

    async def _stream(self, writer: Any, call: LiveCall, send: Send) -> None:
        try:
            await call.begun()
        except Refusal as refusal:
            self._log.refused(call, refusal)
            raise Refusal(
                refusal.code, refusal.message, **{"call_key": str(call.key), **refusal.facts}
            ) from None
        await exchange.begin(
            send,
            200,
            {**_known(call), "cache-control": "no-cache"},
            content_type="text/event-stream; charset=utf-8",
        )
        try:
            async for event in call.follow():
                await exchange.write(send, writer.write(event), more=True)
            end = await self._end(call)
            last = _reply(end.response).events()[-1]
            await exchange.write(send, writer.write(last) + writer.end(), more=True)
            await exchange.write(send, _comment(call, end), more=False)
        except Refusal as refusal:
            self._log.refused(call, refusal)
            await exchange.write(send, writer.fail(refusal), more=False)

    async def _end(self, call: LiveCall) -> Finished:
        try:
            end = await call.finished()
        except Refusal as refusal:
            self._log.refused(call, refusal)
            facts = {"call_key": str(call.key), **refusal.facts}
            raise Refusal(refusal.code, refusal.message, **facts) from None
        self._log.answered(call, end)
        return end

    def _models(self, scope: Scope) -> dict[str, Any]:
        grants, policy = self._door.rights(_credential(scope))
        names = [name for name in sorted(grants.models) if policy.targets(name)]
        # One shape that both SDKs read: OpenAI's `object`/`created`, Anthropic's `type`/….
        return {
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

    # --- tools ----------------------------------------------------------------------------

    async def _mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            # The stream of server messages and the end of a session: this server has neither.
            headers = {"allow": "POST"}
            await exchange.respond(send, 405, None, headers)
            return
        try:
            caller = _credential(scope)
            grants, policy = self._door.rights(caller)
            message = server.parse(await exchange.read_body(receive))
        except server.Malformed as malformed:
            await exchange.respond(send, 400, malformed.answer)
            return
        except Refusal as refusal:
            status = 401 if refusal.code is Code.UNAUTHENTICATED else 200
            await exchange.respond(send, status, server.refused(None, refusal))
            return
        if message.notification:
            await exchange.respond(send, 202, None)
        elif message.method == "initialize":
            await exchange.respond(send, 200, server.initialize(message))
        elif message.method == "ping":
            await exchange.respond(send, 200, server.success(message.id, {}))
        elif message.method == "tools/list":
            listed = {"tools": catalogue.listing(grants, policy)}
            await exchange.respond(send, 200, server.success(message.id, listed))
        elif message.method == "tools/call":
            await self._tool(caller, message, scope, send)
        else:
            unknown = server.failure(
                message.id, server.METHOD_NOT_FOUND, f"unknown method {message.method}"
            )
            await exchange.respond(send, 200, unknown)

    async def _tool(self, caller: str, message: server.Message, scope: Scope, send: Send) -> None:
        name, arguments = message.params.get("name"), message.params.get("arguments") or {}
        if not isinstance(name, str) or not isinstance(arguments, dict):
            wrong = server.failure(
                message.id, server.INVALID_PARAMS, "`name` is a string, `arguments` an object"
            )
            await exchange.respond(send, 200, wrong)
            return
        known: dict[str, str] = {}
        try:
            call = await self._door.tool(
                caller,
                catalogue.canonical(name),
                arguments,
                request_hash=_hash(["/mcp", catalogue.canonical(name), arguments]),
                key=exchange.header(scope, b"x-interlock-call-key"),
            )
            known = {"X-Interlock-Call-Key": str(call.key)}
            end = await self._end(call)
        except Refusal as refusal:
            await exchange.respond(send, 200, server.refused(message.id, refusal), known)
            return
        headers = {**_known(call), **_figures(end)}
        await exchange.respond(send, 200, server.success(message.id, end.response), headers)

    # --- refusals -------------------------------------------------------------------------

    async def _refuse(
        self, dialect: ModuleType, scope: Scope, send: Send, refusal: Refusal
    ) -> None:
        headers = {} if refusal.retryable else {"x-should-retry": "false"}
        if "retry_after" in refusal.facts:
            headers["retry-after"] = str(refusal.facts["retry_after"])
        if "call_key" in refusal.facts:
            headers["X-Interlock-Call-Key"] = str(refusal.facts["call_key"])
        self._log.write("refused", path=scope["path"], code=str(refusal.code))
        await exchange.respond(send, refusal.status, dialect.error(refusal), headers)


def for_principal(app: GatewayApp, token_hash: str) -> Callable[..., Any]:
    """The app as one principal sees it: whatever headers say, this is who calls."""

    async def bound(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, PRINCIPAL: token_hash}, receive, send)

    return bound


def _credential(scope: Scope) -> str:
    """The token hash of whoever calls. Raises Refusal (unauthenticated)."""
    fixed = scope.get(PRINCIPAL)
    if isinstance(fixed, str):
        return fixed
    bearer = exchange.header(scope, b"authorization") or ""
    scheme, _, token = bearer.partition(" ")
    if scheme.lower() != "bearer" or not token:
        token = exchange.header(scope, b"x-api-key") or ""
    if not token:
        raise Refusal(
            Code.UNAUTHENTICATED,
            "no credentials: send the run's token as `Authorization: Bearer` or `x-api-key`, or "
            "connect to the run's socket",
        )
    return access.hash_token(token.strip())


def _is_anthropic(scope: Scope) -> bool:
    if scope["path"] == anthropic.PATH:
        return True
    return exchange.header(scope, b"anthropic-version") is not None


def _reply(response: Any) -> Reply:
    return Reply.from_json(response)


def _hash(value: Any) -> str:
    # Not canonical_json: a client's request may hold floats, which repr renders exactly.
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _known(call: LiveCall) -> dict[str, str]:
    headers = {"X-Interlock-Call-Key": str(call.key)}
    if call.target is not None:
        headers["X-Interlock-Model"] = call.target
    if call.label is not None:
        headers["X-Interlock-Label"] = str(call.label)
    if call.effect_key is not None:
        headers["X-Interlock-Effect-Key"] = call.effect_key
    return headers


def _figures(end: Finished) -> dict[str, str]:
    headers = {
        "X-Interlock-Cost-Nano": str(end.cost_nano),
        "X-Interlock-Tokens": f"{end.input_tokens},{end.output_tokens}",
    }
    if end.replayed:
        headers["X-Interlock-Replayed"] = "1"
    return headers


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
    }
    return f": interlock {json.dumps(figures, separators=(',', ':'))}\n\n".encode()
