"""What a Claude Code tool is here. https://code.claude.com/docs/en/tools-reference names them."""

from __future__ import annotations

import re
from collections.abc import Mapping

_READS = ("read_file", "list_files")

BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "read": ("read_file",),
    "write": ("write_file",),
    "edit": ("edit_file",),
    "multiedit": ("edit_file",),
    "bash": ("shell",),
    "bashoutput": ("shell",),
    "killshell": ("shell",),
    "killbash": ("shell",),
    "glob": ("list_files",),
    "ls": ("list_files",),
    # There is no search tool; to read the same files one by one grants no more.
    "grep": _READS,
    "skill": ("load_skill",),
}
"""Name in lower case → built-in tools of the same power."""

NO_COUNTERPART: Mapping[str, str] = {
    "webfetch": "the sandbox has no network: declare an MCP server that fetches, and name it",
    "websearch": "the sandbox has no network: declare an MCP server that searches, and name it",
    "task": "sub-agents are listed in `subagents:`, and then `delegate` asks them",
    "agent": "sub-agents are listed in `subagents:`, and then `delegate` asks them",
    "todowrite": "a loop keeps no to-do list; what the next run must know goes into `note`",
    "todoread": "a loop keeps no to-do list; what the next run must know goes into `note`",
    "notebookedit": "notebooks are edited as files; grant edit_file if that is meant",
    "notebookread": "notebooks are read as files; grant read_file if that is meant",
    "askuserquestion": "nobody is there to be asked; a call can wait for a person: `approvals:`",
    "exitplanmode": "a loop has no plan mode",
    "enterplanmode": "a loop has no plan mode",
    "slashcommand": "there are no slash commands; what they say can be a skill",
    "toolsearch": "every granted tool is in the context",
}
"""Name in lower case → why it is not brought over, and what would be instead."""

ALL = frozenset({"*", "all", "all tools"})

_MCP = re.compile(r"mcp__(?P<server>.+?)(?:__(?P<tool>.+))?")


def mcp_name(word: str) -> tuple[str, str | None] | None:
    """(server, tool or None for all) of `mcp__server__tool`; None for any other tool."""
    match = _MCP.fullmatch(word)
    if match is None:
        return None
    tool = match["tool"]
    return match["server"], None if tool in (None, "*") else tool


def split_rule(word: str) -> tuple[str, str | None]:
    """`Bash(git add *)` as (`Bash`, `git add *`); (word, None) without parentheses."""
    name, found, rest = word.partition("(")
    inside = rest.removesuffix(")").strip()
    return name, inside if found and inside not in ("", "*") else None
