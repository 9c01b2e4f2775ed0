"""The offline gate: every check over one look's evidence, and one word for all of them.

Pure. Checks, all of which must pass: not worse than stable, not worse than the anchor (an
absolute threshold when there is no stable), no critical case broken, cost and latency within
their ratio; and before any of them the suite must have rejected its own sentinels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.values import Json
from reconciler.gates.evidence import (
    ANCHOR,
    CANDIDATE,
    SENTINEL,
    STABLE,
    Evidence,
    SuiteShape,
    critical_counts,
    missing,
    wanted,
)
from reconciler.gates.statistics import (
    MINIMUM_CASES,
    CriticalTally,
    OfflineDecision,
    Resampler,
    StatisticsError,
    Verdict,
    absolute_decision,
    all_must_pass,
    critical_verdict,
    paired_decision,
    population_interval,
    ratio_of_medians,
    ratio_of_medians_upper,
)
from reconciler.gates.statistics.sentinel import sentinel_rejected

NAMED = 6
"""Cases a sentence names; all of them stand in the figures."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The gate's policy in shares of 1, as the formulas want them."""

    looks: tuple[int, ...]
    delta: float
    threshold: float
    cost_ratio: float | None
    latency_ratio: float | None
    max_errors: int


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: its verdict, a sentence for people, and its figures as text."""

    name: str
    verdict: Verdict
    text: str
    figures: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Reading:
    """The gate at one look. `waiting`: attempts are still missing."""

    decision: Verdict | str
    summary: str
    checks: tuple[Check, ...] = ()

    def document(self) -> Json:
        """The figures for the receipt. Shares are strings with four places: no floats."""
        return {
            "decision": str(self.decision),
            "summary": self.summary,
            "checks": [
                {"name": c.name, "verdict": c.verdict, "text": c.text, "figures": dict(c.figures)}
                for c in self.checks
            ],
        }


def judge(
    suite: SuiteShape,
    evidence: Evidence,
    terms: Terms,
    *,
    look: int,
    arms: tuple[str, ...],
    random: Callable[[str], Resampler],
) -> Reading:
    """Judge one look. `arms` holds `candidate`, and `stable` and `anchor` where there are such.

    `random(name)` gives a seeded source for a bootstrap, so that the same evidence always gives
    the same words.
    """
    plan = wanted(suite, arms, evidence, look=look, max_errors=terms.max_errors)
    errors = evidence.errors()
    if len(errors) > terms.max_errors:
        example = errors[0]
        return Reading(
            "hold",
            f"{len(errors)} attempts were lost to errors (at most {terms.max_errors}); first: "
            f"{example.case}, {example.arm}: {example.detail or 'no detail'}. Repair the "
            "environment; then `interlock resume` or a new commit.",
        )
    left = missing(plan, evidence)
    if left:
        return Reading("waiting", f"{len(plan) - len(left)} of {len(plan)} attempts graded")
    try:
        checks = _checks(suite, evidence, terms, look=look, arms=arms, random=random)
    except StatisticsError as error:
        return Reading("hold", f"the evidence cannot be judged: {error}")
    decision = all_must_pass([check.verdict for check in checks])
    decisive = [c for c in checks if c.verdict == decision] if decision != "pass" else checks
    told = decisive if decision != "pass" else [c for c in checks if c.name != "population"]
    return Reading(decision, "; ".join(check.text for check in told), tuple(checks))


def _checks(
    suite: SuiteShape,
    evidence: Evidence,
    terms: Terms,
    *,
    look: int,
    arms: tuple[str, ...],
    random: Callable[[str], Resampler],
) -> list[Check]:
    last = look >= max(terms.looks)
    checks = [_sentinel(suite, evidence, terms, sentinel) for sentinel in suite.sentinels]
    new = evidence.tallies(CANDIDATE, suite.cases, look)
    for arm in (STABLE, ANCHOR):
        if arm not in arms:
            continue
        old = evidence.tallies(arm, suite.cases, look)
        paired = paired_decision(new, old, look=look, last_look=last, delta=terms.delta)
        flipped = [
            f"{case} ({_share(evidence, arm, case, look)} → "
            f"{_share(evidence, CANDIDATE, case, look)})"
            for case in paired.flipped
        ]
        checks.append(
            Check(
                f"not_worse_than_{arm}",
                paired.decision,
                _paired_text(arm, paired)
                + (f"; now failing: {_named(flipped)}" if flipped else ""),
                {
                    "difference": _text(paired.difference),
                    "standard_error": _text(paired.standard_error),
                    "lower": _text(paired.lower),
                    "upper": _text(paired.upper),
                    "delta": _text(paired.delta),
                    "look": look,
                    "cases": paired.cases,
                    "flipped": list(flipped),
                    "recovered": list(paired.recovered),
                    "regressed_within_margin": paired.regressed_within_margin,
                },
            )
        )
        if arm == STABLE:
            checks.append(_population(new, old, terms))
    if STABLE not in arms:
        first = absolute_decision(
            new, threshold=terms.threshold, look=look, last_look=last, delta=terms.delta
        )
        failing = [f"{case} ({_share(evidence, CANDIDATE, case, look)})" for case in first.failing]
        checks.append(
            Check(
                "pass_rate",
                first.decision,
                f"passes {first.pass_rate:.0%} of {first.cases} cases × {look} "
                f"(at least {max(0.0, first.lower):.0%}; wanted {terms.threshold:.0%} within "
                f"{terms.delta:.0%})"
                + (f"; {first.reason}" if first.cases < MINIMUM_CASES else "")
                + (f"; failing: {_named(failing)}" if failing else ""),
                {
                    "pass_rate": _text(first.pass_rate),
                    "lower": _text(first.lower),
                    "upper": _text(first.upper),
                    "threshold": _text(first.threshold),
                    "look": look,
                    "cases": first.cases,
                    "failing": list(failing),
                },
            )
        )
    checks += [_critical(suite, evidence, case, arms) for case in sorted(suite.critical)]
    if STABLE in arms:
        for name, limit in (("cost", terms.cost_ratio), ("latency", terms.latency_ratio)):
            if limit is not None:
                checks.append(_ratio(suite, evidence, name, limit, look, last, random(name)))
    return checks


def _paired_text(arm: str, paired: OfflineDecision) -> str:
    points = f"{100 * paired.difference:+.0f} points against {arm}"
    if paired.decision == "fail":
        return f"{points}, surely at least {abs(100 * paired.upper):.0f} worse"
    if paired.decision == "pass":
        within = " (regressed within margin)" if paired.regressed_within_margin else ""
        return f"{points}, at worst {100 * paired.lower:+.0f}{within}"
    between = f"between {100 * paired.lower:+.0f} and {100 * paired.upper:+.0f}: undecided"
    # Too few cases are held whatever the numbers say: the reason is what helps then.
    few = paired.cases < MINIMUM_CASES
    return f"{points}, {paired.reason if few else between}"


def _sentinel(suite: SuiteShape, evidence: Evidence, terms: Terms, sentinel: str) -> Check:
    graded = [a for case in suite.cases for a in evidence.graded(SENTINEL + sentinel, case)[:1]]
    passes = sum(a.status == "passed" for a in graded)
    caught = bool(graded) and sentinel_rejected(passes, len(graded), threshold=terms.threshold)
    return Check(
        f"sentinel:{sentinel}",
        "pass" if caught else "hold",
        f"sentinel {sentinel} rejected ({passes} of {len(graded)})"
        if caught
        else f"the suite does not reject its sentinel {sentinel} ({passes} of {len(graded)} "
        "passed), so a pass would prove nothing: add cases that it fails",
        {"passes": passes, "attempts": len(graded)},
    )


def _population(new: list, old: list, terms: Terms) -> Check:  # type: ignore[type-arg]
    interval = population_interval(
        [c.mean - s.mean for c, s in zip(new, old, strict=True)], delta=terms.delta
    )
    # Reported always, never decisive here: it becomes a gate only where a suite samples tasks.
    return Check(
        "population",
        "pass",
        f"on other tasks like these: {100 * interval.lower:+.0f} to {100 * interval.upper:+.0f}",
        {"lower": _text(interval.lower), "upper": _text(interval.upper), "cases": interval.cases},
    )


def _critical(suite: SuiteShape, evidence: Evidence, case: str, arms: tuple[str, ...]) -> Check:
    passes, fails, state = critical_counts(suite, evidence, CANDIDATE, case)
    figures: dict[str, Json] = {"passes": passes, "fails": fails}
    if STABLE in arms:
        old_passes, old_fails, _ = critical_counts(suite, evidence, STABLE, case)
        found = critical_verdict(
            CriticalTally(passes, fails),
            CriticalTally(old_passes, old_fails),
            critical_cases=len(suite.critical),
        ).verdict
        figures |= {"stable_passes": old_passes, "stable_fails": old_fails}
    else:
        found = {"ok": "ok", "broken": "block", "hold": "hold", "more": "more"}[state]  # type: ignore[assignment]
    verdicts: dict[str, Verdict] = {
        "ok": "pass",
        "pre_existing": "pass",
        "block": "fail",
        "hold": "hold",
        "more": "more",
    }
    words = {
        "ok": f"critical {case} ok ({passes} of {passes + fails})",
        "pre_existing": f"critical {case} was broken before",
        "block": f"critical {case} is broken ({passes} of {passes + fails})",
        "hold": f"critical {case} is undecided after {passes + fails} attempts",
        "more": f"critical {case} needs more attempts",
    }
    return Check(f"critical:{case}", verdicts[found], words[found], figures)


def _ratio(
    suite: SuiteShape,
    evidence: Evidence,
    name: str,
    limit: float,
    look: int,
    last: bool,
    random: Resampler,
) -> Check:
    def of(arm: str) -> list[list[float]]:
        return [
            [
                float(a.cost_nano if name == "cost" else a.working_ms)
                for a in evidence.graded(arm, case)[:look]
            ]
            for case in suite.cases
        ]

    new, old = of(CANDIDATE), of(STABLE)
    upper = ratio_of_medians_upper(new, old, random=random)
    inverse = ratio_of_medians_upper(old, new, random=random)
    lower = 1 / inverse if inverse > 0 else float("inf")
    verdict: Verdict = (
        "pass" if upper <= limit else "fail" if lower > limit else "hold" if last else "more"
    )
    ratio = ratio_of_medians(new, old)
    return Check(
        name,
        verdict,
        f"{name} ×{ratio:.2f} (at most ×{upper:.2f}; allowed ×{limit:.2f})",
        {
            "ratio": _text(ratio),
            "lower": _text(lower),
            "upper": _text(upper),
            "limit": _text(limit),
        },
    )


def _named(cases: list[str]) -> str:
    """The first of them, and how many more there are: the figures have all."""
    more = f" and {len(cases) - NAMED} more" if len(cases) > NAMED else ""
    return ", ".join(cases[:NAMED]) + more


def _share(evidence: Evidence, arm: str, case: str, look: int) -> str:
    graded = evidence.graded(arm, case)[:look]
    return f"{sum(a.status == 'passed' for a in graded)}/{len(graded)}"


def _text(value: float) -> str:
    return f"{value:.4f}"
