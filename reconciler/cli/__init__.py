"""The command line: `interlock VERB`. A face: it parses, calls one operation, and shows.

Commands are imported when they are used, because most of what this program needs (an HTTP client,
Docker, git) takes longer to import than a quick look takes to answer.
"""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "agents": ("reconciler.cli.reading", "the inventory: every loop, its owner, release and cost"),
    "approvals": ("reconciler.cli.deciding", "what waits for a person, and whose word it needs"),
    "approve": ("reconciler.cli.deciding", "say yes to what waits"),
    "costs": (
        "reconciler.cli.reading",
        "the meter: money and tokens by agent, team, model, role, day",
    ),
    "demo": ("reconciler.cli.service", "the whole story on a temporary repo, offline"),
    "doctor": ("reconciler.cli.service", "what this machine lacks, and how to get it"),
    "eval": ("reconciler.cli.gating", "run an agent's suite once and show the grades"),
    "explain": ("reconciler.cli.lookups", "effective values of an agent, and who said so"),
    "gate": ("reconciler.cli.gating", "decide: what the branch asks for against what is live"),
    "graph": ("reconciler.cli.graph", "triggers and claims, drawn"),
    "hold": ("reconciler.cli.acting", "no new runs and no promotions of an agent, until resume"),
    "import": ("reconciler.cli.authoring", "bring over an existing agent or a folder of skills"),
    "init": ("reconciler.cli.authoring", "start a config repo that runs as it is"),
    "lint": ("reconciler.cli.lookups", "unattended readiness: may the loops be left alone?"),
    "lock": (
        "reconciler.cli.service",
        "refresh interlock.lock: image digests, tools' fingerprints",
    ),
    "new": ("reconciler.cli.authoring", "add a loop or a skill"),
    "pr": ("reconciler.cli.pulls", "pull requests of the built-in local forge"),
    "rebuild": ("reconciler.cli.service", "restore a state directory from the reports branch"),
    "plan": ("reconciler.cli.planning", "what a change can newly do, touch and cost"),
    "reconcile": ("reconciler.cli.service", "ticks until quiet, then out: the scheduled job"),
    "reject": ("reconciler.cli.deciding", "say no to what waits"),
    "resume": ("reconciler.cli.acting", "lift holds and stops; let a held rollout go on"),
    "rollback": ("reconciler.cli.acting", "take back what is live, at once"),
    "run": ("reconciler.cli.acting", "start a run now"),
    "runs": ("reconciler.cli.reading", "the runs of a loop, newest first"),
    "schema": ("reconciler.cli.authoring", "JSON Schema of the documents, for editors"),
    "serve": ("reconciler.cli.service", "the service: reconciler, gateway and runner"),
    "status": ("reconciler.cli.reading", "rollouts, holds and alerts: what needs a look"),
    "stop": ("reconciler.cli.acting", "refuse every call of agents, and end their runs"),
    "token": ("reconciler.cli.tokens", "tokens of people and services that call from outside"),
    "touches": (
        "reconciler.cli.lookups",
        "what an agent can read, write, destroy, send to and spend",
    ),
    "trace": ("reconciler.cli.reading", "every step of one run, with tokens and cost"),
    "validate": ("reconciler.cli.checking", "findings of a config repo with file:line:column"),
    "version": ("reconciler.cli.service", "the version of this program"),
    "who-touches": (
        "reconciler.cli.lookups",
        "every agent that can reach a tool, model, secret, path …",
    ),
}
"""Name → (module, one line). The function in the module is called like the command."""


class LazyGroup(click.Group):
    """Knows its commands by name and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None when there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion for a name that is nearly right."""
        if args and args[0] not in COMMANDS:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"; did you mean `interlock {close[0]}`?" if close else ""
            ctx.fail(f"there is no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 yes/done · 1 a negative answer · 2 wrong usage · 3 the environment lacks "
    "something (see `interlock doctor`) · 4 waiting for a human.",
)
def interlock() -> None:
    """GitOps for AI agent loops: declared in git, promoted only when their evals pass."""


def main() -> None:
    """Entry point of the `interlock` command."""
    interlock.main(prog_name="interlock")
