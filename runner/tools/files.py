"""`read_file`, `list_files`, `write_file`, `edit_file`: files of the workspace."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from runner.journal import Attempt, Kind, Outcome
from runner.sandbox.contract import PathRefused, Sandbox
from runner.tools.base import Tool, ToolContext, register, result, shape

PATH = "path relative to the workspace"


async def _read(context: ToolContext, arguments: Mapping[str, Any], attempt: Attempt) -> Outcome:
    path = arguments["path"]
    try:
        content = await context.room.use(lambda sandbox: sandbox.read_file(path))
    except PathRefused as error:
        return result(str(error), error=True)
    return result(content.decode(errors="replace"))


async def _list(context: ToolContext, arguments: Mapping[str, Any], attempt: Attempt) -> Outcome:
    prefix = arguments.get("path", "").strip("./")
    try:
        listing = await context.room.use(lambda sandbox: sandbox.list_files(prefix))
    except PathRefused as error:
        return result(str(error), error=True)
    names = [path for path, _ in listing.files]
    if listing.truncated:
        names.append("[there are more; list a folder]")
    return result("\n".join(names) or "(empty)")


async def _write(context: ToolContext, arguments: Mapping[str, Any], attempt: Attempt) -> Outcome:
    path, content = arguments["path"], arguments["content"].encode()
    try:
        await context.room.use(lambda sandbox: sandbox.write_file(path, content))
    except PathRefused as error:
        return result(str(error), error=True)
    return result(f"wrote {len(content)} bytes to {path}")


async def _plan_edit(context: ToolContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The digests before and after go into the intent: a runner that finds the intent without an
    outcome can tell an edit that happened from one that did not, even when `new` holds `old`."""
    path = arguments["path"]
    try:
        content = await context.room.use(lambda sandbox: sandbox.read_file(path))
    except PathRefused:
        return {}
    edited = content.replace(arguments["old"].encode(), arguments["new"].encode(), 1)
    return {"before": _digest(content), "after": _digest(edited)}


async def _edit(context: ToolContext, arguments: Mapping[str, Any], attempt: Attempt) -> Outcome:
    path, old, new = arguments["path"], arguments["old"].encode(), arguments["new"].encode()

    async def act(sandbox: Sandbox) -> Outcome:
        content = await sandbox.read_file(path)
        found = _digest(content)
        done = attempt.intent.get("after")
        if attempt.recovering and found == done != attempt.intent.get("before"):
            return result(f"edited {path}")
        if content.count(old) == 1:
            await sandbox.write_file(path, content.replace(old, new))
            return result(f"edited {path}")
        return result(
            f"`old` is found {content.count(old)} times in {path}; it must match exactly once."
            " Read the file and give more of the text around it.",
            error=True,
        )

    if not old:
        return result("`old` is empty; use write_file for a new file", error=True)
    try:
        return await context.room.use(act)
    except PathRefused as error:
        return result(str(error), error=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


READ_FILE = register(
    Tool(
        name="read_file",
        description="Read a file of the workspace.",
        parameters=shape({"path": PATH}),
        kind=Kind.FILE,
        reads_only=True,
        run=_read,
    )
)
LIST_FILES = register(
    Tool(
        name="list_files",
        description="List the files below a folder of the workspace.",
        parameters=shape({}, {"path": f"folder, {PATH}; default: all"}),
        kind=Kind.FILE,
        reads_only=True,
        run=_list,
    )
)
WRITE_FILE = register(
    Tool(
        name="write_file",
        description="Create or replace a file of the workspace.",
        parameters=shape({"path": PATH, "content": "the whole new content"}),
        kind=Kind.FILE,
        run=_write,
    )
)
EDIT_FILE = register(
    Tool(
        name="edit_file",
        description="Replace a text in a file. `old` must occur exactly once.",
        parameters=shape({"path": PATH, "old": "text to replace", "new": "its replacement"}),
        kind=Kind.FILE,
        run=_edit,
        prepare=_plan_edit,
    )
)
