"""The objects that answers of OpenAI Responses are made of: `response` and its output items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gateway.pricing import Usage
from gateway.providers.conversation import ModelRequest, Output, Stop, Thinking, ToolUse
from gateway.providers.dialects import fields
from gateway.refusals import Refusal

REDACTED = "redacted:"
"""Begins the `encrypted_content` of reasoning that nobody can read."""


def response(
    *,
    model: str,
    identity: str,
    seconds: int,
    request: ModelRequest | None,
    output: Sequence[dict[str, Any]] = (),
    stop: Stop | None = None,
    usage: Usage | None = None,
    error: Refusal | None = None,
) -> dict[str, Any]:
    """The `response` object; in progress as long as there is neither `stop` nor `error`."""
    status, details = "in_progress", None
    if error is not None:
        status = "failed"
    elif stop in (Stop.LENGTH, Stop.REFUSAL):
        reason = "max_output_tokens" if stop is Stop.LENGTH else "content_filter"
        status, details = "incomplete", {"reason": reason}
    elif stop is not None:
        status = "completed"
    asked = request or ModelRequest(model, ())
    return {
        "id": f"resp_{identity}",
        "object": "response",
        "created_at": seconds,
        "completed_at": seconds if status == "completed" else None,
        "status": status,
        "background": False,
        "error": None if error is None else {"code": str(error.code), "message": error.message},
        "incomplete_details": details,
        "instructions": asked.system or None,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": {},
        "model": model,
        "output": list(output),
        "parallel_tool_calls": asked.parallel_tools is not False,
        "previous_response_id": None,
        "reasoning": {"effort": asked.effort, "summary": None},
        "store": False,
        "temperature": asked.temperature,
        "text": {"format": _format(asked.output)},
        "tool_choice": _echo(asked.tool_choice),
        "tools": [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.schema,
                "strict": tool.strict,
            }
            for tool in asked.tools
            if not tool.freeform
        ],
        "top_p": asked.top_p,
        "truncation": "disabled",
        "usage": None if usage is None else _usage(usage),
        "user": asked.user,
    }


def message(text: str, identity: str, status: str = "completed") -> dict[str, Any]:
    """An output item that says something."""
    content = [] if status == "in_progress" else [said(text)]
    return {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def said(text: str) -> dict[str, Any]:
    """The content part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call(tool: ToolUse, identity: str, request: ModelRequest | None) -> dict[str, Any]:
    """An output item that calls a tool, under the name and in the form the client gave it."""
    about = {t.name: t for t in request.tools}.get(tool.name) if request else None
    item: dict[str, Any] = {"id": identity, "call_id": tool.id, "status": "completed"}
    if about is not None and about.freeform:
        text = fields.freeform_input(tool.arguments)
        return {**item, "type": "custom_tool_call", "name": tool.name, "input": text}
    item |= {"type": "function_call", "name": tool.name, "arguments": tool.arguments}
    if about is not None and about.namespace:
        item["namespace"] = about.namespace
        item["name"] = tool.name.removeprefix(f"{about.namespace}__")
    return item


def reasoning(thought: Thinking, identity: str) -> dict[str, Any]:
    """An output item that thinks. Its signature travels as `encrypted_content`."""
    secret = f"{REDACTED}{thought.signature}" if thought.redacted else thought.signature
    if secret.startswith("openai:"):
        secret = secret.removeprefix("openai:").partition(":")[2]
    return {
        "id": identity,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": thought.text}] if thought.text else [],
        "encrypted_content": secret or None,
        "status": "completed",
    }


def _format(output: Output | None) -> dict[str, Any]:
    if output is None:
        return {"type": "text"}
    if output.schema is None:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "name": output.name,
        "schema": output.schema,
        "strict": output.strict,
        "description": output.description or None,
    }


def _echo(choice: str) -> Any:
    if choice.startswith("name:"):
        return {"type": "function", "name": choice.removeprefix("name:")}
    return choice


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def sse(event: dict[str, Any]) -> bytes:
    """One event of the stream."""
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
