"""Rollout policies, resolved and checked: a protection that could not work is refused.

The numbers below are those of `reconciler.gates.statistics`, which is above this room; a test
holds them equal.
"""

from __future__ import annotations

from gateway.values import Millis
from reconciler.config import fleet as values
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
