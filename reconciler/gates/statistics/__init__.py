"""The numbers behind a gate: what may be concluded from how many runs.

A gate's word is only worth something if its error rates are known. This package holds every
inequality that turns run results into a decision, as pure functions over frozen values: no I/O,
no clock, no randomness of its own, standard library only. `tests/simulation` calls these very
functions and measures how often each is wrong; `docs/statistics.md` shows the result.

Callers import from this face only.
"""

from reconciler.gates.statistics.absolute import AbsoluteDecision, absolute_decision
from reconciler.gates.statistics.canary import (
    HORIZONS,
    CanaryVerdict,
    canary_can_fire,
    canary_decision,
    canary_tail,
    minimum_count,
)
from reconciler.gates.statistics.critical import (
    CRITICAL_ATTEMPTS,
    CriticalDecision,
    CriticalState,
    CriticalTally,
    CriticalVerdict,
    critical_case,
    critical_verdict,
)
from reconciler.gates.statistics.paired import OfflineDecision, paired_decision
from reconciler.gates.statistics.population import (
    POPULATION_CASES,
    PopulationInterval,
    population_interval,
)
from reconciler.gates.statistics.ratio import (
    RATIO_LIMIT,
    Resampler,
    ratio_of_medians,
    ratio_of_medians_upper,
)
from reconciler.gates.statistics.reliability import (
    mean_variance,
    pass_hat_k,
    planned_attempts,
    sentinel_bound,
)
from reconciler.gates.statistics.tallies import (
    LOOKS,
    MARGIN,
    MINIMUM_CASES,
    CaseTally,
    StatisticsError,
    Verdict,
    all_must_pass,
)

__all__ = [
    "CRITICAL_ATTEMPTS",
    "HORIZONS",
    "LOOKS",
    "MARGIN",
    "MINIMUM_CASES",
    "POPULATION_CASES",
    "RATIO_LIMIT",
    "AbsoluteDecision",
    "CanaryVerdict",
    "CaseTally",
    "CriticalDecision",
    "CriticalState",
    "CriticalTally",
    "CriticalVerdict",
    "OfflineDecision",
    "PopulationInterval",
    "Resampler",
    "StatisticsError",
    "Verdict",
    "absolute_decision",
    "all_must_pass",
    "canary_can_fire",
    "canary_decision",
    "canary_tail",
    "critical_case",
    "critical_verdict",
    "mean_variance",
    "minimum_count",
    "paired_decision",
    "pass_hat_k",
    "planned_attempts",
    "population_interval",
    "ratio_of_medians",
    "ratio_of_medians_upper",
    "sentinel_bound",
]
