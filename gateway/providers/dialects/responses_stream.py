"""The stream of OpenAI Responses: an answer as items that open, grow and close.

https://platform.openai.com/docs/api-reference/responses-streaming. The official client puts the
answer together from it, and fails on a delta of an item that was not opened; Codex reads the items
that were closed, and the last event.
"""

from __future__ import annotations

from typing import Any

from gateway.providers.conversation import (
    Done,
    Event,
    ModelRequest,
    Stop,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolDelta,
    ToolStart,
    ToolUse,
)
from gateway.providers.dialects import fields, openai
from gateway.providers.dialects import responses_items as items
from gateway.refusals import Refusal


class Writer:
    """Writes events as `response.*`; one writer per stream. One item is open at a time."""

    def __init__(
        self,
        *,
        model: str,
        identity: str,
        seconds: int,
        with_usage: bool,
        request: ModelRequest | None = None,
    ) -> None:
        del with_usage  # always sent
        self._frame: dict[str, Any] = {
            "model": model,
            "identity": identity,
            "seconds": seconds,
            "request": request,
        }
        self._identity = identity
        self._request = request
        self._freeform = fields.freeform_names(request)
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._open: str | None = None
        self._text: list[str] = []
        self._signature = ""
        self._call: ToolStart | None = None
        self._begun = False

    def write(self, event: Event) -> bytes:
        """The bytes of one event."""
        out = self._begin()
        match event:
            case TextDelta():
                out += self._opened("message") + self._say(event.text)
            case ThinkingDelta(redacted=True):
                thought = Thinking("", event.signature, redacted=True)
                out += self._close() + self._whole(items.reasoning(thought, self._item("rs")))
            case ThinkingDelta():
                out += self._opened("reasoning")
                if event.text:
                    out += self._think(event.text)
                if event.signature:
                    self._signature = event.signature
                    out += self._close()
            case ToolStart():
                out += self._close() + self._calling(event)
            case ToolDelta():
                out += self._argue(event.fragment)
            case Done():
                out += self._close()
                if not self._output:
                    out += self._opened("message") + self._close()
                out += self._done(event)
        return out

    def fail(self, refusal: Refusal) -> bytes:
        """An error in the middle of the stream: `response.failed`, then `error`, which is what
        the official client raises."""
        whole = items.response(**self._frame, output=self._output, error=refusal)
        failed = self._event("response.failed", response=whole)
        about = {"code": str(refusal.code), "message": refusal.message, "param": None}
        return failed + self._event("error", **about, **openai.error(refusal))

    def end(self) -> bytes:
        """The end of the stream: nothing follows the last event."""
        return b""

    # --- the answer as a whole

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        started = items.response(**self._frame)
        return self._event("response.created", response=started) + self._event(
            "response.in_progress", response=started
        )

    def _done(self, event: Done) -> bytes:
        whole = items.response(
            **self._frame, output=self._output, stop=event.stop, usage=event.usage
        )
        incomplete = event.stop in (Stop.LENGTH, Stop.REFUSAL)
        return self._event(
            f"response.{'incomplete' if incomplete else 'completed'}", response=whole
        )

    # --- its items

    def _opened(self, kind: str) -> bytes:
        if self._open == kind:
            return b""
        out = self._close()
        self._open, self._text, self._signature = kind, [], ""
        if kind == "message":
            item = items.message("", self._item("msg"), "in_progress")
            part = items.said("")
            return (
                out
                + self._event("response.output_item.added", **self._at(), item=item)
                + self._event("response.content_part.added", **self._part(), part=part)
            )
        item = items.reasoning(Thinking(""), self._item("rs")) | {"status": "in_progress"}
        return (
            out
            + self._event("response.output_item.added", **self._at(), item=item)
            + self._event(
                "response.reasoning_summary_part.added", **self._summary(), part=_summary("")
            )
        )

    def _say(self, text: str) -> bytes:
        self._text.append(text)
        return self._event("response.output_text.delta", **self._part(), delta=text, logprobs=[])

    def _think(self, text: str) -> bytes:
        self._text.append(text)
        return self._event("response.reasoning_summary_text.delta", **self._summary(), delta=text)

    def _calling(self, start: ToolStart) -> bytes:
        self._open, self._text, self._call = "call", [], start
        item = self._called("") | {"status": "in_progress"}
        if start.name in self._freeform:
            item["input"] = ""
        return self._event("response.output_item.added", **self._at(), item=item)

    def _argue(self, fragment: str) -> bytes:
        self._text.append(fragment)
        if self._call is None or self._call.name in self._freeform:
            return b""  # the text is inside JSON that is not whole yet
        return self._event(
            "response.function_call_arguments.delta", **self._ids("fc"), delta=fragment
        )

    def _close(self) -> bytes:
        kind, self._open = self._open, None
        text = "".join(self._text)
        match kind:
            case "message":
                item = items.message(text, self._item("msg"))
                out = self._event(
                    "response.output_text.done", **self._part(), text=text, logprobs=[]
                ) + self._event("response.content_part.done", **self._part(), part=items.said(text))
            case "reasoning":
                item = items.reasoning(Thinking(text, self._signature), self._item("rs"))
                out = self._event(
                    "response.reasoning_summary_text.done", **self._summary(), text=text
                ) + self._event(
                    "response.reasoning_summary_part.done", **self._summary(), part=_summary(text)
                )
            case "call" if self._call is not None:
                item = self._called(text or "{}")
                out = self._argued(item)
            case _:
                return b""
        return out + self._closed(item)

    def _argued(self, item: dict[str, Any]) -> bytes:
        if item["type"] == "custom_tool_call":
            given = item["input"]
            return self._event(
                "response.custom_tool_call_input.delta", **self._ids("fc"), delta=given
            ) + self._event("response.custom_tool_call_input.done", **self._ids("fc"), input=given)
        return self._event(
            "response.function_call_arguments.done",
            **self._ids("fc"),
            name=item["name"],
            arguments=item["arguments"],
        )

    def _called(self, arguments: str) -> dict[str, Any]:
        start = self._call or ToolStart(0, "", "")
        use = ToolUse(start.id, start.name, arguments)
        return items.call(use, self._item("fc"), self._request)

    def _whole(self, item: dict[str, Any]) -> bytes:
        return self._event("response.output_item.added", **self._at(), item=item) + self._closed(
            item
        )

    def _closed(self, item: dict[str, Any]) -> bytes:
        out = self._event("response.output_item.done", **self._at(), item=item)
        self._output.append(item)
        return out

    # --- where an event is

    def _item(self, prefix: str) -> str:
        return f"{prefix}_{self._identity}_{len(self._output)}"

    def _at(self) -> dict[str, Any]:
        return {"output_index": len(self._output)}

    def _ids(self, prefix: str) -> dict[str, Any]:
        return {"item_id": self._item(prefix), **self._at()}

    def _part(self) -> dict[str, Any]:
        return {**self._ids("msg"), "content_index": 0}

    def _summary(self) -> dict[str, Any]:
        return {**self._ids("rs"), "summary_index": 0}

    def _event(self, kind: str, **rest: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **rest}
        self._number += 1
        return items.sse(event)


def _summary(text: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": text}
