"""`interlock graph`: what starts what and who owns what, drawn as a tree, for Mermaid or Graphviz.

Names of events and time zones come from the repository: they are escaped for each format.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from reconciler.cli.layout import styled, width
from reconciler.cli.options import guarded, json_option, show_json
from reconciler.cli.table import printable, short

if TYPE_CHECKING:
    from gateway.values import AgentName
    from reconciler.operations.lookups import Drawn


@click.command("graph")
@click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default="."
)
@click.option(
    "--format",
    "shape",
    type=click.Choice(["tree", "mermaid", "dot"]),
    default="tree",
    show_default=True,
    help="For the terminal, for Markdown, or for Graphviz.",
)
@json_option
@guarded
def graph_command(directory: Path, shape: Literal["tree", "mermaid", "dot"], as_json: bool) -> None:
    """Triggers and claims of DIRECTORY, drawn: what starts what, and who owns what."""
    from reconciler.operations.lookups import graph

    drawn = graph(directory)
    if as_json:
        show_json(_as_json(drawn))
        return
    lines = {"tree": _tree, "mermaid": _mermaid, "dot": _dot}[shape](drawn)
    click.echo("\n".join(lines))


def _triggers(drawn: Drawn) -> dict[str, list[AgentName]]:
    """What starts agents from outside, in words → the agents."""
    from reconciler.operations.lookups import told

    found: dict[str, list[AgentName]] = {}
    for name in drawn.graph.roots:
        found.setdefault(printable(told(drawn.graph.triggers[name])), []).append(name)
    return dict(sorted(found.items()))


def _tree(drawn: Drawn) -> Iterator[str]:
    if not drawn.graph.triggers:
        yield "no agents yet: `interlock new agent NAME`"
    shown: set[AgentName] = set()
    for trigger, names in _triggers(drawn).items():
        yield styled(trigger, bold=True)
        yield from _branches(drawn, names, shown)
    for cycle in drawn.graph.cycles:
        way = " → ".join([*cycle[:8], *(["…"] if len(cycle) > 8 else []), cycle[0]])
        yield styled(f"circle: {way}", fg="red")
        yield from _branches(drawn, [name for name in cycle[:1] if name not in shown], shown)
    for unknown in drawn.graph.unknown:
        yield styled(f"{unknown.place} {unknown.agent} waits for {unknown.name}", fg="yellow")
    if drawn.broken:
        yield f"in error, not drawn: {', '.join(drawn.broken)}"


def _branches(drawn: Drawn, names: list[AgentName], shown: set[AgentName]) -> Iterator[str]:
    """Depth first, with a stack: chains may be longer than Python's recursion allows."""
    stack = [(name, "", number == len(names) - 1) for number, name in enumerate(names)][::-1]
    while stack:
        name, lead, last = stack.pop()
        again = name in shown
        shown.add(name)
        line = f"{lead}{'└─ ' if last else '├─ '}{name}"
        owns = "; ".join(drawn.claims.get(name, ()))
        if again:
            line += "  (as above)"
        elif owns:
            line += styled(f"  owns {short(printable(owns), width() - len(line) - 7)}", dim=True)
        yield line
        below = () if again else drawn.graph.starts.get(name, ())
        lead += "   " if last else "│  "
        stack += [(each, lead, n == len(below) - 1) for n, each in enumerate(below)][::-1]


def _mermaid(drawn: Drawn) -> Iterator[str]:
    """flowchart syntax; texts in quotes with Mermaid's own entity codes, `#` first."""

    def text(raw: str) -> str:
        plain = printable(raw).replace("#", "#35;").replace("&", "#amp;").replace('"', "#quot;")
        return plain.replace("<", "#lt;").replace(">", "#gt;")

    ids = {name: f"a{number}" for number, name in enumerate(drawn.graph.triggers)}
    yield "flowchart LR"
    for name, node in ids.items():
        claims = "".join(f"<br/>owns {text(claim)}" for claim in drawn.claims.get(name, ()))
        yield f'  {node}["{text(name)}{claims}"]'
    for number, (trigger, names) in enumerate(_triggers(drawn).items()):
        yield f'  t{number}(["{text(trigger)}"])'
        for name in names:
            yield f"  t{number} --> {ids[name]}"
    for starter, started in drawn.graph.starts.items():
        for name in started:
            yield f"  {ids[starter]} -->|accepted| {ids[name]}"


def _dot(drawn: Drawn) -> Iterator[str]:
    """Graphviz; texts are quoted strings."""

    def text(*raw: str) -> str:
        escaped = [printable(each).replace("\\", "\\\\").replace('"', '\\"') for each in raw]
        return '"' + "\\n".join(escaped) + '"'

    yield "digraph fleet {"
    yield "  rankdir=LR; node [shape=box];"
    for name in drawn.graph.triggers:
        claims = [f"owns {claim}" for claim in drawn.claims.get(name, ())]
        yield f"  {text(name)} [label={text(name, *claims)}];"
    for number, (trigger, names) in enumerate(_triggers(drawn).items()):
        yield f"  t{number} [label={text(trigger)}, shape=oval];"
        for name in names:
            yield f"  t{number} -> {text(name)};"
    for starter, started in drawn.graph.starts.items():
        for name in started:
            yield f"  {text(starter)} -> {text(name)} [label=accepted];"
    yield "}"


def _as_json(drawn: Drawn) -> dict[str, object]:
    from reconciler.operations.lookups import told

    graph = drawn.graph
    return {
        "agents": {
            name: {
                "trigger": {"kind": trigger.kind, "text": told(trigger)},
                "starts": [*graph.starts.get(name, ())],
                "claims": [*drawn.claims.get(name, ())],
            }
            for name, trigger in graph.triggers.items()
        },
        "cycles": [[*cycle] for cycle in graph.cycles],
        "unknown": [
            {"agent": each.agent, "after": each.name, "at": str(each.place)}
            for each in graph.unknown
        ],
        "in_error": [*drawn.broken],
    }
