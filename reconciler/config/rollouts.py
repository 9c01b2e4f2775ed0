"""Rollout policies, resolved and checked: a protection that could not work is refused.

The numbers below are those of `reconciler.gates.statistics`, which is above this room; a test
holds them equal.
"""

from __future__ import annotations

from gateway.values import Millis
from reconciler.config import fleet as values
from reconciler.config.models.fields import written_thousandths
from reconciler.config.models.fleet import Rollout
from reconciler.config.positions import Document
from reconciler.config.reader import Notes

SMALLEST_CANARY = {30: 3, 50: 3, 100: 4}
"""Horizon → least number of runs whose failure alone would roll back, for a stable release that
passed 80 % of 50 runs: `minimum_count(horizon=…)`."""
MINIMUM_CASES = 20
"""Fewer cases than this and the gate could only ever hold."""


def rollout_policy(
    name: str, rollout: Rollout, document: Document, at: list[str | int], notes: Notes
) -> values.RolloutPolicy:
    """The policy as values; a canary that could not fire is an error at its `count`."""
    gate, canary = rollout.gate, rollout.canary
    if canary is not None:
        _check_canary(canary.count, canary.horizon, document, [*at, "canary"], notes)
    return values.RolloutPolicy(
        name=name,
        gate=None
        if gate is None
        else values.GatePolicy(
            delta_permille=gate.delta,
            looks=tuple(gate.looks),
            first_release=values.FirstReleasePolicy(
                min_pass_rate_permille=gate.first_release.min_pass_rate,
                approval=gate.first_release.approval,
            ),
            cost_ratio_permille=gate.cost_ratio,
            latency_ratio_permille=gate.latency_ratio,
            max_errors=gate.max_errors,
        ),
        canary=None
        if canary is None
        else values.CanaryPolicy(canary.count, canary.horizon, Millis(canary.max_age)),
        on_harm=values.HarmPolicy(rollout.on_harm.quality, rollout.on_harm.safety),
    )


def _check_canary(
    count: int, horizon: int, document: Document, at: list[str | int], notes: Notes
) -> None:
    smallest = SMALLEST_CANARY.get(horizon)
    if smallest is None:
        known = ", ".join(str(length) for length in SMALLEST_CANARY)
        notes.error(
            "canary-horizon",
            document.at([*at, "horizon"]),
            f"a horizon of {horizon} graded runs has no known rate of false alarms",
            f"use one of {known}",
        )
    elif count < smallest:
        notes.error(
            "canary-cannot-fire",
            document.at([*at, "count"]),
            f"a canary of {count} could not be rolled back even if every run of it failed",
            f"use a count of {smallest} or more, or canary: none",
        )
    elif count > horizon:
        notes.error(
            "canary-horizon",
            document.at([*at, "count"]),
            f"a canary of {count} runs is longer than its horizon of {horizon} graded runs",
            "lower the count or raise the horizon (30, 50 or 100)",
        )


def weaker(
    policy: values.RolloutPolicy, stricter: values.RolloutPolicy
) -> list[tuple[str, str, str]]:
    """Where a policy protects less than another: (path below it, what is said, the stricter).

    `.gate`, `.gate.delta`, `.canary`, `.canary.count`, `.on_harm.safety` and the like. Empty when
    it protects at least as much everywhere.
    """
    found: list[tuple[str, str, str]] = []
    if stricter.gate is not None:
        found += _weaker_gate(policy.gate, stricter.gate)
    if stricter.canary is not None:
        if policy.canary is None:
            found.append((".canary", "none", f"{stricter.canary.count} runs"))
        elif policy.canary.count < stricter.canary.count:
            said, asked = policy.canary.count, stricter.canary.count
            found.append((".canary.count", str(said), str(asked)))
    for name in ("quality", "safety"):
        said, asked = getattr(policy.on_harm, name), getattr(stricter.on_harm, name)
        if asked == "stop" and said != "stop":
            found.append((f".on_harm.{name}", said, asked))
    return found


def _weaker_gate(
    gate: values.GatePolicy | None, stricter: values.GatePolicy
) -> list[tuple[str, str, str]]:
    if gate is None:
        return [(".gate", "none", "a gate")]
    found: list[tuple[str, str, str]] = []

    def more(path: str, said: int | None, asked: int | None) -> None:
        """A higher bound is weaker, and no bound the weakest."""
        if asked is not None and (said is None or said > asked):
            shown = "none" if said is None else written_thousandths(said)
            found.append((f".gate.{path}", shown, written_thousandths(asked)))

    more("delta", gate.delta_permille, stricter.delta_permille)
    more("cost_ratio", gate.cost_ratio_permille, stricter.cost_ratio_permille)
    more("latency_ratio", gate.latency_ratio_permille, stricter.latency_ratio_permille)
    if gate.max_errors > stricter.max_errors:
        found.append((".gate.max_errors", str(gate.max_errors), str(stricter.max_errors)))
    first, asked = gate.first_release, stricter.first_release
    if first.min_pass_rate_permille < asked.min_pass_rate_permille:
        said, rate = first.min_pass_rate_permille, asked.min_pass_rate_permille
        path = ".gate.first_release.min_pass_rate"
        found.append((path, written_thousandths(said), written_thousandths(rate)))
    if asked.approval and not first.approval:
        found.append((".gate.first_release.approval", "false", "true"))
    return found
