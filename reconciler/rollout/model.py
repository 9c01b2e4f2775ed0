"""The values a rollout is made of: its state, the facts it is shown, the actions it asks for.

Nothing here decides or acts. `advance` maps (Rollout, Facts, now) to (Rollout, Actions); the tick
gathers the facts and carries the actions out in the same database transaction that stores the new
state, so that a crash between the two cannot exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import Field

from gateway.policy import Frozen
from gateway.values import AgentName, Json, Millis, ReleaseDigest


class State(StrEnum):
    """Where a rollout stands. The last five are final; `held` waits for a human. `judged` is how a
    pull request's head ends that was not rejected: merged, it goes on from its verdict."""

    EVALUATING = "evaluating"
    AWAITING_APPROVAL = "awaiting_approval"
    CANARY = "canary"
    HELD = "held"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"
    JUDGED = "judged"


FINAL = frozenset(
    {State.PROMOTED, State.REJECTED, State.CANCELLED, State.ROLLED_BACK, State.JUDGED}
)


class FirstRelease(Frozen):
    """An agent's first release has nothing to be compared with: an absolute threshold instead."""

    min_pass_rate_permille: int = 800
    approval: bool = True


class GatePolicy(Frozen):
    """When an offline gate passes. Ratios in permille; formulas in reconciler.gates.statistics."""

    delta_permille: int = 100
    looks: tuple[int, ...] = (3, 6, 12)
    first_release: FirstRelease = FirstRelease()
    cost_ratio_permille: int | None = 1250
    latency_ratio_permille: int | None = 1250
    max_errors: int = 4
    """Attempts lost to infrastructure that are made again; more is a hold."""


class CanaryPolicy(Frozen):
    """The next `count` runs go to the candidate; looked at after every graded one."""

    count: int = 20
    horizon: Literal[30, 50, 100] = 30
    max_age_ms: int = 14 * 86_400_000


class OnHarm(Frozen):
    """What happens to the candidate's runs in flight when it is rolled back."""

    quality: Literal["finish_pinned", "stop"] = "finish_pinned"
    safety: Literal["finish_pinned", "stop"] = "stop"


class RolloutPolicy(Frozen):
    """How a change of one agent goes live. `gate` None: on merge, proven by nothing."""

    name: str
    gate: GatePolicy | None = Field(default_factory=GatePolicy)
    canary: CanaryPolicy | None = Field(default_factory=CanaryPolicy)
    on_harm: OnHarm = OnHarm()


@dataclass(frozen=True, slots=True)
class Rollout:
    """One candidate of one agent on its way. `look` is the attempts per case asked for so far."""

    id: str
    agent: AgentName
    candidate: ReleaseDigest
    stable: ReleaseDigest | None
    anchor: ReleaseDigest | None
    policy: RolloutPolicy
    suite: str
    commit: str
    state: State
    look: int
    reason: str
    opened_at: Millis
    since: Millis
    verdict: Verdict | None = None
    pull: int | None = None
    """The pull request whose head this judges; such a one never becomes a canary."""

    @property
    def final(self) -> bool:
        """No transition leaves this state."""
        return self.state in FINAL


class Verdict(StrEnum):
    """What a gate says. `hold`: not enough evidence, or an error; a human decides."""

    PASS = "pass"
    FAIL = "fail"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class GateReading:
    """The gate's state at the rollout's current look. `more` asks for the next look; `waiting`
    means attempts are still open. `document` is the evidence, for the receipt."""

    decision: Literal["pass", "fail", "hold", "more", "waiting"]
    summary: str
    document: Json = None


@dataclass(frozen=True, slots=True)
class HardStop:
    """One event in a canary run that ends the canary at once."""

    run: str
    kind: Literal["safety", "policy_violation", "spend"]
    detail: str


@dataclass(frozen=True, slots=True)
class CanaryReading:
    """The candidate's live runs so far, and stable's record to compare them with."""

    assigned: int
    graded: int
    fails: int
    open_runs: int
    stable_fails: int
    stable_passes: int
    silent: int = 0
    """Runs that ended and say nothing: errors, kills, unknown outcomes."""
    hard_stops: tuple[HardStop, ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """Somebody, or a rollback, said: not now. Deny beats allow; expiry is explicit."""

    id: str
    agent: str
    kind: Literal["promotion", "assignment"]
    reason: str
    actor: str
    at: Millis
    expires_at: Millis | None = None

    def covers(self, agent: str, now: Millis) -> bool:
        """In force for this agent now; `*` is the whole fleet."""
        return self.agent in ("*", agent) and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything `advance` may know. Gathered by the tick; no clock, no database in there."""

    desired: ReleaseDigest | None
    """What the watched branch asks for today; None when the agent is broken or gone."""
    suite_changed: bool = False
    """The suite declared today is not the one this rollout is gated on."""
    quarantined: bool = False
    holds: tuple[Hold, ...] = ()
    gate: GateReading | None = None
    canary: CanaryReading | None = None
    resumed_by: str | None = None
    """A human's explicit go for this very rollout while it is held or awaiting approval."""


@dataclass(frozen=True, slots=True)
class StartEvals:
    """Have `attempts` attempts per case of every arm enqueued. Idempotent by run identity."""

    attempts: int


@dataclass(frozen=True, slots=True)
class OpenCanary:
    """Point the agent's next assignments at the candidate, within the canary's count."""


@dataclass(frozen=True, slots=True)
class Promote:
    """Flip the pointer: the candidate is stable from now on."""

    anchor: bool
    """True when the new stable also becomes the anchor (first release, or approved by a human)."""


@dataclass(frozen=True, slots=True)
class RollBack:
    """Take the candidate back: no later assignment gets it, by any route."""

    reason: str
    stop_runs: bool


@dataclass(frozen=True, slots=True)
class CloseCanary:
    """Stop assigning to the candidate without judging it (held, cancelled)."""


@dataclass(frozen=True, slots=True)
class WriteReceipt:
    """Keep the evidence of a decision."""

    kind: Literal["offline", "canary"]
    document: Json


Action = StartEvals | OpenCanary | Promote | RollBack | CloseCanary | WriteReceipt
