"""Agent files as people write them, the odd ones included: what an importer has to live with."""

from __future__ import annotations

REVIEWER = """\
---
name: code-reviewer
description: Expert code review specialist. Use proactively after writing or modifying code.
tools: Read, Grep, Glob, Bash
model: sonnet
---

You are a senior code reviewer. When invoked, run git diff and review what changed.
"""

# Dialogue at the left margin and colons without quotes: no YAML, and very common.
DIALOGUE = """\
---
name: frontend-developer
description: Builds React components. Use this agent when:

<example>
Context: User needs a custom page.
user: "I need a customer detail page with tabs"
assistant: "I'll use the frontend-developer agent."
</example>

Proactively use this agent when:
- building components
model: opus
color: cyan
---

You are an elite frontend developer.
"""

MCP = """\
---
name: release-manager
description: "Drafts releases."
tools: Read, mcp__tracker__list_changes, mcp__tracker__delete_project, mcp__tracker__open_chang, mcp__jira__search, mcp__tracker
permissionMode: bypassPermissions
maxTurns: 20
skills: house-style, plugin:unknown-skill
hooks:
  PreToolUse:
    - matcher: Bash
---
Draft the release.
"""  # noqa: E501

RULES = """\
---
name: committer
description: Commits.
tools:
  - Bash(git add *)
  - Bash(git commit *)
  - Read
  - WebFetch
  - FrobnicateTool
---
Commit what is staged.
"""

PLAN = """\
---
name: researcher
description: Looks, never touches
model: inherit
permissionMode: plan
disallowedTools: Bash
---
Look around.
"""

NO_FRONT_MATTER = "# Tidy up\n\nRemove what nothing uses.\n"

WINDOWS = (
    "---\r\nname: Windows Helper\r\ndescription: Made on Windows\r\ntools: Read\r\n---\r\nHelp.\r\n"
)

TABS = (
    "---\nname: tabbed\ndescription: with tabs\ntools:\n\t- Read\n\t- Edit\n---\n\tIndented text.\n"
)

UNICODE = """\
---
name: Überprüfer 審査
description: Prüft Übersetzungen — „genau“ 🔍
tools: ["Read", "Write"]
---
Prüfe die Übersetzung. 翻訳を確認する。
"""

NAMELESS = """\
---
description: only that
---
Do the thing.
"""

EMPTY_BODY = """\
---
name: terse
description: Summarise the open issues of the week.
---
"""

NO_TOOLS = """\
---
name: thinker
description: thinks
tools: []
---
Think.
"""

UNCLOSED = "---\nname: never-closed\nThe fence is not closed.\n"

HUGE = "---\nname: huge\ndescription: large\n---\n" + "word " * 200_000

LITERAL_KEY = (
    "---\nname: leaky\ndescription: x\n---\nUse AKIA" + "IOSFODNN7EXAMPLZ" + " to log in.\n"
)

CONTROL = "---\nname: control\ndescription: x\n---\nA \x1b[31mred\x1b[0m text.\n"
