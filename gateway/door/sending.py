"""One attempt at one target: the request leaves, the answer comes back and is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from gateway import routing
from gateway.access.directory import InForce
from gateway.calls.answers import Shelf
from gateway.door.books import Attempt
from gateway.door.guarding import Guarding, Window, note
from gateway.keys import NoKey
from gateway.live import LiveCall
from gateway.policy.rules import Hook
from gateway.pricing import PriceList
from gateway.providers import stored
from gateway.providers.asked import Asked
from gateway.providers.pieces import End, Piece
from gateway.providers.serving import Serving, stream, whole
from gateway.providers.stored import Frame
from gateway.providers.upstream import Upstream
from gateway.refusals import Refusal
from gateway.routing import Failure, Target, Try
from gateway.values import Clock


@dataclass(frozen=True, slots=True)
class ModelAttempt(Attempt):
    """A reserved attempt of a model call: everything needed to send and to settle it."""

    target: Target
    output_tokens: int
    price: PriceList | None
    shelf: Shelf | None

    @property
    def model_id(self) -> str | None:
        return self.target.model.id

    @property
    def provider_kind(self) -> str | None:
        return self.target.provider.kind


class Withheld(Exception):
    """The answer is here and paid for, and a guardrail does not let it pass."""

    def __init__(self, refusal: Refusal, end: End) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.end = end


class Sender:
    """Sends reserved attempts. `monotonic` counts seconds and never goes back."""

    def __init__(
        self,
        upstream: Upstream,
        guarding: Guarding,
        clock: Clock,
        monotonic: Callable[[], float],
    ) -> None:
        self._upstream = upstream
        self._guarding = guarding
        self._clock = clock
        self._monotonic = monotonic

    async def send(
        self, call: LiveCall, attempt: ModelAttempt, asked: Asked, policy: InForce, step: Try
    ) -> End:
        """Hand the answer on as it comes. Its end is held back until it is settled.

        Raises Failure, and Refusal of a guardrail.
        """
        target, who = attempt.target, call.who
        assert who is not None
        virtual = policy.policy.virtual_models.get(asked.model)
        guard = self._guarding.at(Hook.MODEL_OUTPUT, policy, who, model=asked.model)
        at_once = asked.stream and (guard is None or not (guard.asks or guard.buffers))
        frame = Frame.of(call.key, asked.model, self._clock.now())
        serving = Serving(
            self._upstream,
            target,
            asked if at_once or not asked.stream else asked.as_whole(),
            attempt.output_tokens,
            routing.merged_parameters(target.model, virtual, target.name),
            frame,
        )
        try:
            if at_once:
                windows = None if guard is None else (guard.window(), guard.window())
                end = await self._follow(call, attempt, serving, step.first_token_ms, windows)
                for window in windows or ():
                    note(call, window.findings)
                return end
            end = await whole(serving)
        except NoKey as refusal:
            raise Failure(refusal.message, done=False, code=refusal.code, status=401) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Failure(
                f"{serving.where} answered something that is not its dialect "
                f"({type(error).__name__})",
                done=True,
            ) from None
        if guard is not None:
            try:
                end = await self._guarding.answer(guard, call, asked, end)
            except Refusal as refusal:
                raise Withheld(refusal, end) from None
        call.begin(target=target.name, label=attempt.label, effect_key=None)
        if not asked.stream:
            return end
        pieces, last = stored.again(asked, end.stored, frame)
        for piece in pieces:
            call.add(piece.data)
        return End(end.usage, end.stored, tail=last.tail)

    async def _follow(
        self,
        call: LiveCall,
        attempt: ModelAttempt,
        serving: Serving,
        first_token_ms: int | None,
        windows: tuple[Window, Window] | None,
    ) -> End:
        """A stream, piece by piece; the first one may be waited for only so long."""
        async with aclosing(stream(serving, windows)) as pieces:  # type: ignore[type-var]
            upcoming = aiter(pieces)
            try:
                seconds = None if first_token_ms is None else first_token_ms / 1000
                async with asyncio.timeout(seconds):
                    piece: Piece | End = await anext(upcoming)
            except TimeoutError:
                raise Failure(
                    f"{serving.where} said nothing for {first_token_ms} ms", done=True
                ) from None
            call.first = self._monotonic()
            call.begin(target=attempt.target.name, label=attempt.label, effect_key=None)
            while not isinstance(piece, End):
                call.add(piece.data)
                piece = await anext(upcoming)
            return piece
