"""Cases that must not break, judged one by one.

"Must pass 5 of 5" on four cases that each work 98 % of the time fails a third of all unchanged
releases. Wald's sequential probability ratio test (1945) of 0.9 against 0.6 asks for as many
attempts as the case needs instead, and a case that stable cannot do either blocks nobody.

The extra attempts of a critical case belong to this test alone: the paired rule gets the first
`look` attempts of every case, never these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from reconciler.gates.statistics.tallies import StatisticsError

CriticalState = Literal["ok", "broken", "more", "hold"]
CriticalVerdict = Literal["ok", "block", "pre_existing", "hold", "more"]

CRITICAL_ATTEMPTS: Final = 24
"""Attempts after which a case that is neither ok nor broken is held."""

_PASS_WEIGHT: Final = math.log(0.9 / 0.6)
_FAIL_WEIGHT: Final = math.log(0.1 / 0.4)
_OK_AT: Final = math.log(10)


@dataclass(frozen=True)
class CriticalTally:
    """Graded attempts of one arm at one critical case. Negative counts: StatisticsError."""

    passes: int
    fails: int

    def __post_init__(self) -> None:
        if self.passes < 0 or self.fails < 0:
            raise StatisticsError(f"{self.passes} passes and {self.fails} fails: negative count")


@dataclass(frozen=True)
class CriticalDecision:
    """A critical case's verdict; `needs` names the arm to attempt again when it is `more`."""

    verdict: CriticalVerdict
    candidate: CriticalState
    stable: CriticalState
    needs: Literal["candidate", "stable"] | None


def critical_case(passes: int, fails: int, *, critical_cases: int) -> CriticalState:
    """The state of one arm at one case, to be asked after every attempt until not `more`.

        L = ln(.9/.6)·passes + ln(.1/.4)·fails
        ok at L ≥ ln 10 · broken at L ≤ −ln(10·max(4, critical_cases)) · hold at 24 attempts

    `critical_cases` is how many the suite has: each is one more chance of a false alarm. Stop
    asking at the first answer that is not `more`: an ok is not taken back by later attempts.
    """
    tally = CriticalTally(passes, fails)
    if critical_cases < 1:
        raise StatisticsError(f"{critical_cases} critical cases: there is at least this one")
    likelihood = _PASS_WEIGHT * tally.passes + _FAIL_WEIGHT * tally.fails
    if likelihood >= _OK_AT:
        return "ok"
    if likelihood <= -math.log(10 * max(4, critical_cases)):
        return "broken"
    return "hold" if passes + fails >= CRITICAL_ATTEMPTS else "more"


def critical_verdict(
    candidate: CriticalTally, stable: CriticalTally, *, critical_cases: int
) -> CriticalDecision:
    """Whether this case blocks the candidate.

    Candidate ok → `ok`. When it is broken or held, stable takes the same test: ok → `block`,
    broken → `pre_existing`, held → `hold`. While an arm that is asked says `more`, so does this.
    Stable's attempts are only asked for when they matter; those it has already count.
    """
    new = critical_case(candidate.passes, candidate.fails, critical_cases=critical_cases)
    old = critical_case(stable.passes, stable.fails, critical_cases=critical_cases)
    if new == "ok":
        return CriticalDecision("ok", new, old, None)
    if new == "more":
        return CriticalDecision("more", new, old, "candidate")
    if old == "more":
        return CriticalDecision("more", new, old, "stable")
    answers: dict[CriticalState, CriticalVerdict] = {
        "ok": "block",
        "broken": "pre_existing",
        "hold": "hold",
    }
    return CriticalDecision(answers[old], new, old, None)
