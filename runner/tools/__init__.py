"""Built-in tools. Importing this room registers them; `offered` says which a role may use."""

from __future__ import annotations

from runner.spec import Role, RoleKind
from runner.tools import conduct, files, shell, skills
from runner.tools.base import REGISTRY, Tool, ToolContext, misfit, result, shorten

__all__ = [
    "REGISTRY",
    "Tool",
    "ToolContext",
    "misfit",
    "offered",
    "result",
    "shorten",
]

_ROOMS = (conduct, files, shell, skills)  # imported so that they register


def offered(role: Role, *, delegates: bool) -> dict[str, Tool]:
    """The built-in tools of a role, by name.

    `finish` is always there, `load_skill` exactly when there are skills; everything else only when
    the role lists it. `delegates` is true for the agent itself when it has sub-agents. A checker
    gets only tools that read (its shell runs on a read-only snapshot).
    """
    names = {name for name in role.tools if name in REGISTRY}
    names = (names | {"finish", "load_skill"}) - ({"load_skill"} if not role.skills else set())
    if not delegates:
        names.discard("delegate")
    tools = {name: REGISTRY[name] for name in REGISTRY if name in names}
    if role.kind is RoleKind.CHECKER:
        tools = {name: tool for name, tool in tools.items() if tool.reads_only}
        tools["finish"] = conduct.CHECKER_FINISH
    return tools
