"""`delegate`, `note`, `finish`: what an agent says about its own run.

`delegate` and `finish` are carried out by the harness, which owns sub-agents and the end of a run;
here is only what the model is told about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.journal import Attempt, Kind, Outcome
from runner.tools.base import Tool, ToolContext, register, result, shape

MAX_NOTES_CHARS = 4_000


async def _note(context: ToolContext, arguments: Mapping[str, Any], attempt: Attempt) -> Outcome:
    text = arguments["text"]
    if len(text) > MAX_NOTES_CHARS:
        return result(
            f"{len(text)} characters; notes may have at most {MAX_NOTES_CHARS}. Shorten them.",
            error=True,
        )
    return result("noted", notes=text)


NOTE = register(
    Tool(
        name="note",
        description="Leave notes for your next run. They replace the notes you were given.",
        parameters=shape({"text": f"at most {MAX_NOTES_CHARS} characters"}),
        kind=Kind.NOTE,
        run=_note,
    )
)
DELEGATE = register(
    Tool(
        name="delegate",
        description="Give a task to a sub-agent. It knows only what you write; you get its answer.",
        parameters=shape({"name": "the sub-agent", "task": "everything it needs to know"}),
        kind=Kind.DELEGATE,
    )
)
FINISH = register(
    Tool(
        name="finish",
        description="Say that the task is done, or that you refuse it (outcome `refused`).",
        parameters=shape(
            {"outcome": "what you achieved, in a sentence; or `refused`"},
            {"evidence": "what shows it: commands and their results; or why you refuse"},
        ),
        kind=Kind.FINISH,
    )
)
CHECKER_FINISH = Tool(
    name="finish",
    description="Give your verdict on the work. Accept only what you have verified yourself.",
    parameters={
        "type": "object",
        "properties": {
            "verdict": {"type": "string", "enum": ["accept", "reject"]},
            "reasons": {"type": "string", "description": "what you checked and what you found"},
        },
        "required": ["verdict", "reasons"],
        "additionalProperties": False,
    },
    kind=Kind.FINISH,
    reads_only=True,
)
