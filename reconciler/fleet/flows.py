"""What may flow through an agent: from texts that others write, and data that not all may read,
to tools that change or send something.

Labels are enforced by the gateway, call by call. Here the same rules are asked ahead of time, of
everything an agent is granted: which harm could happen at all. Taint goes from role to role with
every hand-over, so an agent is looked at over all its roles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.policy import Access, Policy, ToolClass
from gateway.values import Sensitivity
from reconciler.config import AgentConfig, GrantedTool, ParticipantConfig

READS_FILES = frozenset({"shell", "read_file", "list_files"})
"""Built-in tools through which the workspace's files enter a role."""
PAYLOADS = frozenset({"event", "webhook", "api"})
"""Triggers whose runs begin with a text that somebody else wrote."""
CHANGING = frozenset({Access.WRITE, Access.DESTRUCTIVE, Access.EGRESS})


class Classes:
    """Classification of tools by `server.tool`, each looked up once: fleets share few tools."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._known: dict[str, ToolClass] = {}

    def of(self, name: str) -> ToolClass:
        """Its class; of a tool nobody classified, or of no declared server, write + egress."""
        if name not in self._known:
            self._known[name] = self._policy.tool(name) or ToolClass()
        return self._known[name]

    def classified(self, name: str) -> bool:
        """Whether somebody wrote down what the tool does."""
        server, _, tool = name.partition(".")
        found = self._policy.servers.get(server)
        return found is not None and tool in found.tools


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One external tool as one role may use it."""

    tool: str
    role: str
    access: tuple[Access, ...]
    classified: bool
    trusted: bool
    sensitivity: Sensitivity
    args: Mapping[str, tuple[str, ...]]
    approval: bool

    @property
    def changes(self) -> bool:
        """Whether it writes, destroys or sends."""
        return not CHANGING.isdisjoint(self.access)

    @property
    def sends(self) -> bool:
        """Whether what it is given may leave the house."""
        return Access.EGRESS in self.access

    @property
    def gives_text(self) -> bool:
        """Whether its results are content; what only writes answers with an acknowledgement."""
        return Access.READ in self.access or not self.classified

    @property
    def confined(self) -> bool:
        """Whether its grant allows one exact value for each argument that it restricts."""
        return confined(self.args)

    @property
    def free(self) -> bool:
        """Whether it changes or sends something with nobody, and no exact value, in the way."""
        return self.changes and not self.approval and not self.confined


SourceKind = Literal["tool", "workspace", "trigger", "hand-over"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where text enters an agent. `name` is the tool, the repository, the event or the agents."""

    kind: SourceKind
    name: str
    trusted: bool
    sensitivity: Sensitivity

    def __str__(self) -> str:
        if self.kind == "tool":
            return f"results of {self.name}"
        if self.kind == "workspace":
            return f"files of {self.name}"
        return self.name


@dataclass(frozen=True, slots=True)
class Flow:
    """Data that could leave: read from `data`, sent or written by `sink`, steered by `steer`."""

    steer: Source
    data: Source
    sink: ToolUse


def confined(args: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether constraints leave exactly one value to each argument they name, one at least."""
    return bool(args) and all(
        len(globs) == 1 and not any(special in globs[0] for special in "*?[")
        for globs in args.values()
    )


def uses_of(agent: AgentConfig, classes: Classes) -> tuple[ToolUse, ...]:
    """External tools by role, in order."""
    return tuple(
        _use(name, tool, role, classes)
        for role in agent.participants
        for name, tool in sorted(role.tools.items())
    )


def _use(name: str, tool: GrantedTool, role: ParticipantConfig, classes: Classes) -> ToolUse:
    kind = classes.of(name)
    return ToolUse(
        tool=name,
        role=role.name,
        access=kind.access,
        classified=classes.classified(name),
        trusted=kind.trusted,
        sensitivity=kind.sensitivity,
        args=tool.args,
        approval=tool.approval,
    )


def sources_of(agent: AgentConfig, uses: tuple[ToolUse, ...]) -> tuple[Source, ...]:
    """Where text enters the agent, its own instructions and skills not counted."""
    trigger = agent.trigger
    reads = any(READS_FILES & set(role.builtin) for role in agent.participants)
    return sources_from(
        uses,
        files=agent.workspace.git if agent.workspace is not None and reads else None,
        trigger=trigger.kind,
        what=trigger.what,
        after=trigger.after,
    )


def sources_from(
    uses: Iterable[ToolUse], *, files: str | None, trigger: str, what: str, after: Sequence[str]
) -> tuple[Source, ...]:
    """Where text enters: by tools, by `files` of a repository, by what a trigger carries.

    A repository's files and what a trigger carries are untrusted and internal; a tool's results
    are what its classification says. `trigger`, `what` and `after` as in `TriggerConfig`.
    """
    found = [
        Source("tool", use.tool, use.trusted, use.sensitivity) for use in uses if use.gives_text
    ]
    if files is not None:
        found.append(Source("workspace", files, False, Sensitivity.INTERNAL))
    if trigger == "after":
        handed = f"hand-over from {', '.join(after)}"
        found.append(Source("hand-over", handed, False, Sensitivity.INTERNAL))
    elif trigger in PAYLOADS:
        payload = f"payload of {trigger} {what}".strip()
        found.append(Source("trigger", payload, False, Sensitivity.INTERNAL))
    return tuple(dict.fromkeys(found))


def leaks(sources: tuple[Source, ...], uses: tuple[ToolUse, ...]) -> tuple[Flow, ...]:
    """The lethal trifecta: untrusted input, sensitive data, and a free way out, in one agent.

    Secret data may go nowhere by a free tool. Internal data may go to where internal readers
    only see it, but not out of the house and not into something public. One flow per free tool:
    the most sensitive data, the first source that could steer it.
    """
    steering = next((source for source in sources if not source.trusted), None)
    if steering is None:
        return ()
    found = []
    for use in uses:
        if not use.free:
            continue
        data = [source for source in sources if _may_not_go(source, use)]
        if data:
            worst = max(data, key=lambda source: source.sensitivity is Sensitivity.SECRET)
            found.append(Flow(steering, worst, use))
    return tuple(found)


def _may_not_go(source: Source, sink: ToolUse) -> bool:
    if source.sensitivity is Sensitivity.SECRET:
        return True
    outward = sink.sends or sink.sensitivity is Sensitivity.PUBLIC
    return source.sensitivity is Sensitivity.INTERNAL and outward


def leaks_told(found: Sequence[Flow]) -> str:
    """What is wrong, for a sentence that begins with the agent: `reads …, sees … and may call …`.
    `found` is not empty."""
    first = found[0]
    tools = list(dict.fromkeys(flow.sink.tool for flow in found))
    more = f" and {len(tools) - 4} more" if len(tools) > 4 else ""
    return (
        f"reads {first.steer} (untrusted), sees {first.data} ({first.data.sensitivity}) and may "
        f"call {', '.join(tools[:4])}{more} without approval"
    )


def leaks_fix(found: Sequence[Flow]) -> str:
    """What takes the danger away. `found` is not empty."""
    return (
        f"add approvals: {{{found[0].sink.tool}: pause_for_human}}, or restrict its arguments to "
        "one exact value each, or take one of the three away"
    )
