"""Rules about what ends a run, and who says that it is done."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from gateway.policy import Window
from reconciler.findings import Severity, quoted
from reconciler.fleet.rules import Desk, Hit, agent_rule, named
from reconciler.fleet.touches import budgets_of


@agent_rule(
    "no-stop", Severity.WARNING, "a run that goes in circles is ended by its money and nothing else"
)
def no_stop(desk: Desk) -> Iterator[Hit]:
    """No ceiling on steps or time. `until` alone is none: it may never come true."""
    limits, until = desk.agent.limits, desk.agent.until
    if limits.max_steps is not None or limits.max_wall_ms is not None:
        return
    aimed = until.command is not None or until.checker is not None
    yield Hit(
        desk.agent.place,
        f"{quoted(desk.agent.name)} has neither a step nor a time limit"
        + (", and its until may never come true" if aimed else ", and no until"),
        "add harness.max_steps or harness.max_wall_time here, or in fleet.defaults",
    )


@agent_rule(
    "no-budget",
    Severity.WARNING,
    "one run is limited, the number of runs is not: nothing caps a day",
)
def no_budget(desk: Desk) -> Iterator[Hit]:
    """Some model it may use falls under no enforced budget of a day or longer."""
    platform = desk.facts.fleet.platform
    enforced = [
        rule
        for rule in budgets_of(desk.facts.fleet, desk.agent)
        if rule.mode == "enforce"
        and rule.window is not Window.RUN
        and rule.limit is not None
        and (rule.user, rule.tag) == ("*", "*")
    ]
    models = sorted({t for role in desk.agent.participants for t in platform.targets(role.model)})
    free = [m for m in models if not any(fnmatchcase(m, rule.model) for rule in enforced)]
    if free:
        yield Hit(
            desk.agent.place,
            f"no enforced budget of a day or longer covers {quoted(desk.agent.name)}"
            + (f" on {named(free)}" if len(free) < len(models) else ""),
            "add a budget with window: day and each_agent: true to gateway/budgets.yaml",
        )


@agent_rule("until-by-maker", Severity.WARNING, "the one who did the work says that it is done")
def until_by_maker(desk: Desk) -> Iterator[Hit]:
    """It acts on the world, and a run ends when the maker says so."""
    until = desk.agent.until
    acting = sorted({use.tool for use in desk.uses if use.changes})
    if acting and until.command is None and until.checker is None:
        yield Hit(
            desk.at("harness.until"),
            f"{quoted(desk.agent.name)} may call {named(acting)}, and only its own word ends a run",
            "add harness.until with a command, or with a sub-agent of role: checker",
        )


@agent_rule(
    "same-checker",
    Severity.WARNING,
    "who has the same model and the same text makes the same mistake",
)
def same_checker(desk: Desk) -> Iterator[Hit]:
    """The checker that counts is the maker once more."""
    checker = next((s for s in desk.agent.subagents if s.name == desk.agent.until.checker), None)
    if checker is None:
        return
    main, platform = desk.agent.main, desk.facts.fleet.platform
    same_model = platform.targets(checker.model) == platform.targets(main.model)
    if same_model and checker.instructions.body.strip() == main.instructions.body.strip():
        yield Hit(
            checker.place,
            f"checker {quoted(checker.name)} has the model and the instructions of its maker",
            "give it instructions of its own, better another model too",
        )


@agent_rule(
    "overlapping-runs", Severity.WARNING, "the next run may start while the last one still works"
)
def overlapping_runs(desk: Desk) -> Iterator[Hit]:
    """The schedule is due more often than a run may last."""
    gap = desk.facts.week.gaps.get(desk.agent.name)
    longest = desk.agent.limits.max_wall_ms
    if gap is not None and longest is not None and gap * 1000 < longest:
        yield Hit(
            desk.agent.trigger.place or desk.agent.place,
            f"{quoted(desk.agent.name)} starts every {_span(gap)}, and a run may take "
            f"{_span(longest // 1000)}",
            "lower harness.max_wall_time, or start it less often",
        )


def _span(seconds: int) -> str:
    """`90s`, `20m`, `1h30m`: as durations are written."""
    if seconds < 120:
        return f"{seconds}s"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}h{minutes}m" if hours and minutes else f"{hours}h" if hours else f"{minutes}m"
