"""Rules about what an agent can do to the world while nobody watches."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.policy import Access
from reconciler.findings import Severity, quoted
from reconciler.fleet.claims import owned
from reconciler.fleet.flows import leaks, leaks_fix, leaks_told
from reconciler.fleet.rules import Desk, Hit, agent_rule, named


@agent_rule(
    "lethal-trifecta",
    Severity.ERROR,
    "untrusted input, sensitive data and a free way out in one agent: one planted sentence is "
    "enough to send the data away",
)
def lethal_trifecta(desk: Desk) -> Iterator[Hit]:
    """Text that anybody may have written can make it carry out what not everybody may read."""
    found = leaks(desk.sources, desk.uses)
    if not found:
        return
    yield Hit(
        desk.role(found[0].sink.role),
        f"{quoted(desk.agent.name)} {leaks_told(found)}",
        leaks_fix(found),
    )


@agent_rule(
    "tainted-write",
    Severity.WARNING,
    "what it reads may hold instructions of others, and what it does then looks like its own",
)
def tainted_write(desk: Desk) -> Iterator[Hit]:
    """Untrusted input and a free tool that changes something, where no data leaks as well."""
    steering = next((source for source in desk.sources if not source.trusted), None)
    if steering is None or leaks(desk.sources, desk.uses):
        return
    free = sorted({use.tool for use in desk.uses if use.free})
    if free:
        role = next(use.role for use in desk.uses if use.tool == free[0] and use.free)
        yield Hit(
            desk.role(role),
            f"{quoted(desk.agent.name)} reads {steering} (untrusted) and may call {named(free)} "
            "without approval, with any arguments",
            "restrict an argument that says where it acts to one exact value (args), or ask for "
            "approval",
        )


@agent_rule(
    "destructive-unapproved",
    Severity.WARNING,
    "what is destroyed unattended is gone; the gateway refuses such calls until somebody is asked",
)
def destructive_unapproved(desk: Desk) -> Iterator[Hit]:
    """A destructive tool whose calls wait for nobody."""
    for use in desk.uses:
        if Access.DESTRUCTIVE in use.access and not use.approval:
            yield Hit(
                desk.role(use.role),
                f"{quoted(desk.agent.name)} ({use.role}) may call {use.tool}, which destroys, "
                "without approval",
                f"add approvals: {{{use.tool}: pause_for_human}}, or do not grant it",
            )


@agent_rule(
    "unclassified-tool",
    Severity.WARNING,
    "nobody wrote down what the tool does, so it counts as writing and sending",
)
def unclassified_tool(desk: Desk) -> Iterator[Hit]:
    """A granted tool without a class."""
    for use in desk.uses:
        if not use.classified:
            yield Hit(
                desk.role(use.role),
                f"{quoted(desk.agent.name)} ({use.role}) is granted {use.tool}, which is not "
                "classified",
                "add it under its server's tools, with its access and sensitivity",
            )


@agent_rule(
    "ungated-writes",
    Severity.WARNING,
    "what is merged acts on the world at once: no eval stands between",
)
def ungated_writes(desk: Desk) -> Iterator[Hit]:
    """A rollout without a gate, for an agent that changes something."""
    acting = sorted({use.tool for use in desk.uses if use.changes})
    if acting and desk.agent.rollout.gate is None:
        yield Hit(
            desk.at("rollout"),
            f"{quoted(desk.agent.name)} may call {named(acting)}, and its rollout "
            f"{quoted(desk.agent.rollout.name)} has no gate",
            "write a suite, and use a rollout with a gate",
        )


@agent_rule(
    "unclaimed-write",
    Severity.INFO,
    "two agents may change the same thing, each undoing the other's work, and no plan will say so",
)
def unclaimed_write(desk: Desk) -> Iterator[Hit]:
    """It writes through a server and claims nothing there."""
    claimed = {
        claim.pattern.removeprefix("mcp:").partition("/")[0]
        for claim in owned(desk.facts.fleet, desk.agent)
        if claim.realm == "mcp"
    }
    writing: dict[str, list[str]] = {}
    for use in desk.uses:
        server = use.tool.partition(".")[0]
        if {Access.WRITE, Access.DESTRUCTIVE} & set(use.access) and server not in claimed:
            writing.setdefault(server, []).append(use.tool)
    for server, tools in writing.items():
        yield Hit(
            desk.at("owns"),
            f"{quoted(desk.agent.name)} may call {named(sorted(set(tools)))} and claims nothing "
            f"on {server}",
            f'add what it owns there: owns: ["mcp:{server}/…"]',
        )
