"""Questions about a config repo: is it ready to be left alone, what can an agent reach, and why.

`lint`, `touches`, `who-touches` and `explain`; what starts what is drawn in `reconciler.cli.graph`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.values import show_usd
from reconciler.cli.layout import field, rows, styled, width, wrapped
from reconciler.cli.options import NEGATIVE, fail, guarded, json_option, show_json
from reconciler.cli.table import printable

if TYPE_CHECKING:
    from reconciler.operations.lookups import Explained, Linted, ToolUse, Touches

REPO = click.Path(exists=True, file_okay=False, path_type=Path)
COLOUR = {"error": "red", "warning": "yellow", "info": "cyan"}
FEW = 10
"""Findings of one kind that are shown before `--all` is asked for."""


def directory_option(command: Any) -> Any:
    """`--dir DIRECTORY`: the config repo's work directory."""
    return click.option(
        "--dir", "directory", type=REPO, default=".", help="The config repo [default: here]."
    )(command)


@click.command("lint")
@click.argument("directory", type=REPO, default=".")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@click.option("--all", "everything", is_flag=True, help="Every finding, however many of a kind.")
@json_option
@guarded
def lint_command(directory: Path, strict: bool, everything: bool, as_json: bool) -> None:
    """Unattended readiness: may the loops in DIRECTORY be left alone?

    Exit code 1 when there is an error: a plan of this commit would fail.
    """
    from datetime import UTC, datetime

    from gateway.clock import SystemClock
    from reconciler.operations.lookups import lint, page

    now = SystemClock.from_environment(os.environ).now()
    linted = lint(directory, datetime.fromtimestamp(now / 1000, UTC).date())
    if as_json:
        show_json(
            {
                "ready": not linted.errors,
                "findings": [
                    {
                        **finding.as_json(),
                        "why": linted.rules[finding.id].why if finding.id in linted.rules else "",
                        "docs": page(finding.id, linted.rules),
                    }
                    for finding in linted.findings
                ],
            }
        )
    else:
        _show_findings(linted, FEW if not everything else sys.maxsize)
    bad = linted.errors or (strict and any(f.severity == "warning" for f in linted.findings))
    sys.exit(NEGATIVE if bad else 0)


def _show_findings(linted: Linted, most: int) -> None:
    from reconciler.operations.lookups import page

    counts: dict[str, int] = {}
    for severity in COLOUR:
        found = [f for f in linted.findings if f.severity == severity]
        counts[severity] = len(found)
        for name in dict.fromkeys(f.id for f in found):
            kind = [f for f in found if f.id == name]
            rule = linted.rules.get(name)
            click.echo(f"{styled(severity, fg=COLOUR[severity])}  {styled(name, bold=True)}")
            for line in wrapped(rule.why, width() - 2) if rule is not None else ():
                click.echo(f"  {line}")
            if rule is not None:
                click.echo(styled(f"  {page(name, linted.rules)}", dim=True))
            for finding in kind[:most]:
                click.echo(f"\n  {finding.place}")
                for line in wrapped(finding.message, width() - 4):
                    click.echo(f"    {line}")
                for number, line in enumerate(wrapped(finding.fix, width() - 6)):
                    if line:
                        click.echo(f"    {'→ ' if number == 0 else '  '}{line}")
            if len(kind) > most:
                click.echo(f"\n  … and {len(kind) - most:,} more; --all shows them")
            click.echo()
    agents = f"{linted.agents} agent{'s' * (linted.agents != 1)}"
    if not linted.findings:
        click.echo(f"{agents}: ready to be left alone")
        return
    names = {"error": "error", "warning": "warning", "info": "note"}
    told = ", ".join(f"{n} {names[s]}{'s' * (n != 1)}" for s, n in counts.items() if n)
    click.echo(f"{agents}: {told}")


@click.command("touches")
@click.argument("agent")
@directory_option
@json_option
@guarded
def touches_command(agent: str, directory: Path, as_json: bool) -> None:
    """Everything AGENT can read, write, destroy, send to and spend."""
    from reconciler.operations.lookups import touches

    found = touches(directory, agent)
    if as_json:
        show_json(_touches_json(found))
        return
    click.echo(f"{styled(found.agent, bold=True)}  {styled(str(found.place), dim=True)}\n")
    for line in _touches_fields(found):
        if line:
            click.echo(line)


def _touches_fields(found: Touches) -> Iterator[str]:
    from reconciler.operations.lookups import told

    def tools(access: str) -> list[str]:
        return [_tool(use) for use in found.tools if access in use.access]

    people = f" ({', '.join(found.people)})" if found.people else ""
    yield field("decided by", [f"{', '.join(found.deciders)}{people}"])
    yield field("started by", [told(found.trigger)])
    yield field("starts", [", ".join(found.starts)] if found.starts else [])
    yield ""
    yield field("reads", [*tools("read"), *_workspace(found)] or ["nothing but its own texts"])
    yield field("writes", tools("write"))
    yield field("destroys", tools("destructive"), colour="red")
    yield field("sends", tools("egress"))
    waiting = sorted({use.tool for use in found.tools if use.approval})
    yield field("waits for ok", [", ".join(waiting)] if waiting else [])
    yield field("untrusted", [str(source) for source in found.sources if not source.trusted])
    yield field(
        "LEAK",
        [f"{flow.data} ({flow.data.sensitivity}) through {flow.sink.tool}" for flow in found.leaks],
        colour="red",
    )
    yield field("owns", [claim.pattern for claim in found.claims])
    yield field(
        "models",
        [
            f"{model.name} ({', '.join(model.roles)})"
            + (f" → {', '.join(model.targets)}" if model.targets != (model.name,) else "")
            for model in found.models
        ],
    )
    yield field("skills", [", ".join(found.skills)] if found.skills else [])
    yield field("in container", [f"{role}: {', '.join(tools)}" for role, tools in found.builtin])
    yield field("hosts", [f"{host} (through the gateway)" for host in found.hosts])
    yield field(
        "secrets", [f"{s.reference} → {', '.join(s.hosts) or s.user}" for s in found.secrets]
    )
    yield field("spends", _spends(found))
    yield field(
        "looser",
        [f"{x.path}: {x.value}, {x.stricter.level} says {x.inherited}" for x in found.loosened],
        colour="yellow",
    )


def _workspace(found: Touches) -> list[str]:
    work = found.workspace
    if work is None:
        return []
    guarded_by = f", {', '.join(work.protect)} protected" if work.protect else ""
    return [f"files of {work.git} at {work.ref}{guarded_by}"]


def _tool(use: ToolUse) -> str:
    parts = [use.tool]
    if use.role != "main":
        parts.append(f"({use.role})")
    parts += [f"{name}={'|'.join(globs)}" for name, globs in sorted(use.args.items())]
    parts += ["[waits for approval]"] if use.approval else []
    parts += ["[unclassified]"] if not use.classified else []
    return " ".join(parts)


def _spends(found: Touches) -> list[str]:
    lines = [f"{show_usd(found.spend.per_run)} a run"] if found.spend.per_run is not None else []
    for rule in found.spend.budgets:
        shared = "each agent" if rule.each_agent else "shared"
        audit = ", not enforced" if rule.mode == "audit" else ""
        parts = [show_usd(rule.limit)] if rule.limit is not None else []
        parts += [f"{rule.tokens:,} tokens"] if rule.tokens is not None else []
        parts += [f"{rule.requests:,} requests"] if rule.requests is not None else []
        told = ", ".join(parts)
        lines.append(f"{told} a {rule.window} ({rule.name}, {shared}{audit})")
    return lines


def _touches_json(found: Touches) -> dict[str, Any]:
    from reconciler.operations.lookups import told

    return {
        "agent": found.agent,
        "team": found.team,
        "at": str(found.place),
        "decided_by": {"owners": [*found.deciders], "people": [*found.people]},
        "started_by": told(found.trigger),
        "starts": [*found.starts],
        "tools": [_tool_json(use) for use in found.tools],
        "builtin_tools": {role: [*tools] for role, tools in found.builtin},
        "models": [
            {"name": m.name, "roles": [*m.roles], "targets": [*m.targets]} for m in found.models
        ],
        "skills": [*found.skills],
        "workspace": None
        if found.workspace is None
        else {
            "git": found.workspace.git,
            "ref": found.workspace.ref,
            "protect": [*found.workspace.protect],
        },
        "hosts": [*found.hosts],
        "secrets": [
            {"reference": s.reference, "used_by": s.user, "hosts": [*s.hosts]}
            for s in found.secrets
        ],
        "sources": [
            {"kind": s.kind, "name": s.name, "trusted": s.trusted, "sensitivity": s.sensitivity}
            for s in found.sources
        ],
        "leaks": [
            {"untrusted": f.steer.name, "data": f.data.name, "through": f.sink.tool}
            for f in found.leaks
        ],
        "claims": [{"claim": c.pattern, "realm": c.realm} for c in found.claims],
        "spend": {
            "per_run_nano_usd": found.spend.per_run,
            "budgets": [rule.model_dump(mode="json") for rule in found.spend.budgets],
        },
        "loosened": [
            {"path": x.path, "value": x.value, "inherited": x.inherited, "at": str(x.place)}
            for x in found.loosened
        ],
    }


def _tool_json(use: ToolUse) -> dict[str, Any]:
    return {
        "tool": use.tool,
        "role": use.role,
        "access": [*use.access],
        "classified": use.classified,
        "trusted": use.trusted,
        "sensitivity": use.sensitivity,
        "args": {name: [*globs] for name, globs in sorted(use.args.items())},
        "approval": use.approval,
    }


@click.command("who-touches")
@click.argument("resource")
@directory_option
@json_option
@guarded
def who_touches_command(resource: str, directory: Path, as_json: bool) -> None:
    """Every agent that can reach RESOURCE: a server, server.tool, model, provider, skill, host,
    secret, claim, path, repository, team or image. Globs work; `secret:NAME` asks for one kind.

    Exit code 1 when the repository declares nothing of that name.
    """
    from reconciler.operations.lookups import who_touches

    asked = who_touches(directory, resource)
    if as_json:
        show_json(
            {
                "known": asked.known,
                "touches": [
                    {"kind": t.kind, "name": t.name, "agent": t.agent, "how": t.how,
                     "at": str(t.place)}
                    for t in asked.touches
                ],
                "not_known_of": [*asked.broken],
            }
        )  # fmt: skip
        sys.exit(0 if asked.known else NEGATIVE)
    if not asked.known:
        hint = f"; {asked.close}" if asked.close else ""
        fail(f"nothing here is called {printable(resource)}{hint}", NEGATIVE)
    if not asked.touches:
        click.echo(f"no agent touches {printable(resource)}")
    for kind, name in dict.fromkeys((t.kind, t.name) for t in asked.touches):
        group = [t for t in asked.touches if (t.kind, t.name) == (kind, name)]
        click.echo(f"{styled(kind, dim=True)} {styled(printable(name), bold=True)}")
        click.echo(rows([(t.agent, t.how) for t in group]))
    if asked.broken:
        click.echo(f"\nin error, so not known of: {', '.join(asked.broken)}")


@click.command("explain")
@click.argument("path")
@click.argument("key", required=False)
@directory_option
@json_option
@guarded
def explain_command(path: str, key: str | None, directory: Path, as_json: bool) -> None:
    """Effective values of an agent, and who said so.

    PATH is an agent's name or a file of it; KEY, or `:key` after it, one value or a group of them:
    `ci-triage harness`, `agents/ci-triage/agent.yaml:sandbox.cpus`.
    """
    from reconciler.operations.lookups import explain, in_words

    found = explain(directory, path, key)
    if as_json:
        show_json(_explained_json(found))
        return
    click.echo(f"{styled(found.agent, bold=True)}  {styled(str(found.place), dim=True)}\n")
    keys = max((len(row.key) for row in found.rows), default=0)
    sources = [f"{row.level}  {row.place or ''}".rstrip() for row in found.rows]
    room = width() - keys - 4 - max(map(len, sources), default=0)
    short = [len(row.value) for row in found.rows if len(row.value) <= room]
    column = max(short, default=0)
    for row, source in zip(found.rows, sources, strict=True):
        first, *more = wrapped(row.value, width() - keys - 2)
        beside = not more and len(first) <= column
        line = f"{row.key.ljust(keys)}  {first.ljust(column) if beside else first}"
        click.echo(line + (f"  {styled(source, dim=True)}" if beside else ""))
        for piece in [*more, *([] if beside else [styled(source, dim=True)])]:
            click.echo(f"{' ' * keys}  {piece}")
        if row.loosened is not None:
            strict = row.loosened.stricter
            note = f"looser than {row.loosened.inherited} of the {strict.level}"
            note += f" ({strict.place})" if strict.place is not None else ""
            for piece in wrapped(note, width() - keys - 2):
                click.echo(f"{' ' * keys}  {styled(piece, fg='yellow')}")
    if found.tools:
        click.echo(f"\n{styled('Tools granted', bold=True)}")
        click.echo(
            rows(
                [
                    (
                        tool.use.tool,
                        in_words(tool.use)
                        + (f"; class at {tool.classified_at}" if tool.classified_at else ""),
                    )
                    for tool in found.tools
                ]
            )
        )


def _explained_json(found: Explained) -> dict[str, Any]:
    return {
        "agent": found.agent,
        "at": str(found.place),
        "values": [
            {
                "key": row.key,
                "value": row.value,
                "level": row.level,
                "at": str(row.place) if row.place is not None else None,
                "looser_than": None
                if row.loosened is None
                else {
                    "value": row.loosened.inherited,
                    "level": row.loosened.stricter.level,
                    "at": str(row.loosened.stricter.place or ""),
                },
            }
            for row in found.rows
        ],
        "tools": [
            {
                **_tool_json(tool.use),
                "at": str(tool.place),
                "classified_at": str(tool.classified_at) if tool.classified_at else None,
            }
            for tool in found.tools
        ],
    }
