"""`shell`: a command in the run's sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.journal import Attempt, Kind, Outcome
from runner.sandbox.contract import ExecResult, Sandbox
from runner.tools.base import Tool, ToolContext, register, result


async def _run(context: ToolContext, arguments: Mapping[str, Any], attempt: Attempt) -> Outcome:
    asked = arguments.get("timeout_seconds")
    timeout = min(asked * 1000, context.exec_timeout_ms) if asked else context.exec_timeout_ms

    async def act(sandbox: Sandbox) -> ExecResult:
        # A process started before the runner died goes on in the container and leaves its result
        # there. Where there is none, running it again is safe: it reaches only the sandbox.
        if attempt.recovering:
            adopted = await sandbox.adopt(attempt.key)
            if adopted is not None:
                return adopted
        argv = ("/bin/sh", "-c", arguments["command"])
        return await sandbox.exec(attempt.key, argv, timeout_ms=max(1, timeout))

    ended = await context.room.use(act)
    return result(
        observation(ended),
        error=ended.exit_code != 0 or ended.timed_out,
        exit=ended.exit_code,
        timed_out=ended.timed_out,
        duration_ms=ended.duration_ms,
    )


def observation(ended: ExecResult) -> str:
    """What the model reads: `exit N` (or `exit N, timed out`), stdout, then stderr if any."""
    head = f"exit {ended.exit_code}"
    if ended.timed_out:
        head += ", timed out"
    parts = [head]
    if ended.stdout:
        parts.append(ended.stdout.rstrip("\n"))
    if ended.stderr:
        parts.append("stderr:\n" + ended.stderr.rstrip("\n"))
    if ended.truncated:
        parts.append("[output was cut]")
    return "\n".join(parts)


SHELL = register(
    Tool(
        name="shell",
        description="Run a shell command in the workspace. There is no network.",
        parameters={
            "type": "object",
            "properties": {
                "command": {"type": "string", "description": "for /bin/sh -c"},
                "timeout_seconds": {"type": "integer", "description": "ends the command"},
            },
            "required": ["command"],
            "additionalProperties": False,
        },
        kind=Kind.EXEC,
        reads_only=True,
        run=_run,
    )
)
