"""How many tokens a request would have: what Anthropic's clients ask before they send it.

A provider that speaks Messages is asked; for any other it is an estimate, of what is likely. (The
door reserves by `conversation.estimate_input`, which is an upper estimate, about twice as much.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.providers import wire
from gateway.providers.conversation import (
    Document,
    Foreign,
    Image,
    ModelRequest,
    ToolResult,
    pages,
    texts,
)
from gateway.providers.upstream import Upstream
from gateway.routing import Failure, Target

COUNTED = ("messages", "system", "tools", "tool_choice", "thinking", "output_config")
"""What of a request a token count accepts, besides the model."""
TYPICAL_IMAGE_TOKENS = 1100
TYPICAL_PAGE_TOKENS = 2200
TYPICAL_PAGE_BYTES = 60_000
"""Of a PDF's base64."""


async def count_tokens(
    upstream: Upstream,
    target: Target,
    request: ModelRequest,
    body: Mapping[str, Any],
    betas: str = "",
) -> int:
    """Input tokens of a request in Anthropic's dialect; `body` is what the client sent, `betas`
    its `anthropic-beta` header.

    Raises routing.Failure and Refusal (no key) like a call; a provider without the endpoint (404,
    405, 501) is no failure but an estimate. Asking costs nothing.
    """
    if target.provider.kind in ("scripted", "cassette"):
        return typical_input(request)
    if "messages" not in wire.apis_of(target.provider):
        return typical_input(request)
    asked = {name: body[name] for name in COUNTED if body.get(name) is not None}
    asked["model"] = target.model.id
    try:
        async with wire.ask(
            upstream,
            target,
            "messages",
            asked,
            headers={"anthropic-beta": betas} if betas else {},
            suffix="/count_tokens",
        ) as answer:
            found = (await answer.document()).get("input_tokens")
    except Failure as failure:
        if failure.status in (404, 405, 501):
            return typical_input(request)
        raise
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise Failure(f"provider {target.provider_name} gave no count of tokens", done=False)
    return found


def typical_input(request: ModelRequest) -> int:
    """What a request's input is likely to be, in tokens: four bytes a token, three where the text
    is not ASCII, 1,100 per image, 2,200 per page of a PDF, 3 per message, 20 per tool."""
    total = 3 + 3 * len(request.messages) + 20 * len(request.tools)
    for part in request.parts():
        match part:
            case Image():
                total += TYPICAL_IMAGE_TOKENS
            case ToolResult():
                total += TYPICAL_IMAGE_TOKENS * len(part.images)
            case Document():
                total += TYPICAL_PAGE_TOKENS * min(pages(part, TYPICAL_PAGE_BYTES), 10)
            case Foreign():
                total += -(-part.size // 4)
    plain = other = 0
    for text in texts(request):
        size = len(text.encode())
        ascii_size = size if text.isascii() else sum(character.isascii() for character in text)
        plain += ascii_size
        other += size - ascii_size
    return total + -(-plain // 4) + -(-other // 3)
