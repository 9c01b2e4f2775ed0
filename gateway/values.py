"""The words every package shares: identities, money, time, labels and the canonical form.

This is the lowest room of the lowest package. It imports no I/O and no clock, so that anything,
pure or not, may depend on it. Two of the frozen formats live here because everything else is
built on them: the canonical JSON form (docs/formats/canonical-json.md) and the effect key
(docs/formats/effect-key.md).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from fractions import Fraction
from math import ceil
from typing import NewType, Protocol

AgentName = NewType("AgentName", str)
"""Lower-case, hyphenated name of an agent; unique in a fleet."""
TeamName = NewType("TeamName", str)
RunId = NewType("RunId", str)
"""`run-` + 16 hex digits, derived from what the run is about (see `derived_id`)."""
ReleaseDigest = NewType("ReleaseDigest", str)
"""`rel-` + the first 12 hex digits of the SHA-256 of a release's canonical form."""
Occurrence = NewType("Occurrence", str)
"""What a run is about: `schedule:2026-11-23T05:00:00Z`, `manual:<id>`, `eval:<gate>:<case>:…`."""
StepPath = NewType("StepPath", str)
"""Position of a step in a run: `7`, or `7.2` for the second step of the sub-agent that step 7
started. Deterministic whatever runs in parallel; the parent is the prefix."""
NanoUSD = NewType("NanoUSD", int)
"""Money: integer nano-dollars (10⁻⁹ USD). Never a float."""
Millis = NewType("Millis", int)
"""Time: integer milliseconds since 1970-01-01T00:00:00Z."""

NANO = 1_000_000_000
MOST_NANO = 2**63 - 1
"""The largest amount a BIGINT column holds: nine billion dollars."""
_GROUPED = re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?", re.ASCII)
_COUNT = re.compile(r"0|[1-9]\d*", re.ASCII)

Json = None | bool | int | str | list["Json"] | dict[str, "Json"]


class Clock(Protocol):
    """Tells the time. The only way any room learns what time it is."""

    def now(self) -> Millis:
        """Milliseconds since the epoch, UTC. May go backwards when the machine's clock does."""
        ...


class Purpose(StrEnum):
    """Why a run exists: `live` touches the world, `eval` sees only recorded tools."""

    LIVE = "live"
    EVAL = "eval"


class Integrity(StrEnum):
    """Who could have written a text that enters a context."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"


class Sensitivity(StrEnum):
    """Who may read a text. Ordered: public < internal < secret."""

    PUBLIC = "public"
    INTERNAL = "internal"
    SECRET = "secret"


_SENSITIVITY_ORDER = (Sensitivity.PUBLIC, Sensitivity.INTERNAL, Sensitivity.SECRET)


@dataclass(frozen=True, slots=True)
class Label:
    """Integrity and sensitivity of a text. A run's taint is the join of all it has read."""

    integrity: Integrity = Integrity.UNTRUSTED
    sensitivity: Sensitivity = Sensitivity.INTERNAL

    def join(self, other: Label) -> Label:
        """The label of a text made from both: the less trusted, the more sensitive."""
        untrusted = Integrity.UNTRUSTED in (self.integrity, other.integrity)
        return Label(
            Integrity.UNTRUSTED if untrusted else Integrity.TRUSTED,
            max(self.sensitivity, other.sensitivity, key=_SENSITIVITY_ORDER.index),
        )

    def __str__(self) -> str:
        return f"{self.integrity}/{self.sensitivity}"

    @classmethod
    def parse(cls, text: str) -> Label:
        """Inverse of `str`. Raises ValueError on anything else."""
        integrity, _, sensitivity = text.partition("/")
        return cls(Integrity(integrity), Sensitivity(sensitivity))


TRUSTED = Label(Integrity.TRUSTED, Sensitivity.PUBLIC)
"""The label of nothing read yet, and of platform-owned text: the bottom of the lattice."""


@dataclass(frozen=True, slots=True)
class CallKey:
    """Identity of one request through the gateway, given by the runner, stable over restarts.

    The journal and the `calls` ledger are joined by it. `call` counts the requests that one
    step makes; it is 0 for a step that makes a single one.
    """

    run: RunId
    step: StepPath
    call: int = 0

    def __str__(self) -> str:
        return f"{self.run}/{self.step}/{self.call}"

    @classmethod
    def parse(cls, text: str) -> CallKey:
        """Inverse of `str`. Raises ValueError on anything else."""
        parts = text.split("/")
        if len(parts) != 3 or not all(parts) or not _COUNT.fullmatch(parts[2]):
            raise ValueError(f"not a call key: {text!r} (expected run/step/call)")
        return cls(RunId(parts[0]), StepPath(parts[1]), int(parts[2]))


@dataclass(frozen=True, slots=True)
class EffectKey:
    """Identity of one effect on the world: what the agent does, for which occurrence.

    It holds neither the release nor the attempt, so that a canary and stable, or a run and its
    restart, cannot do the same thing twice. `ordinal` counts equal actions within the
    occurrence, from 0. Sent upstream as the idempotency key.
    """

    agent: AgentName
    occurrence: Occurrence
    action: str
    ordinal: int

    def __str__(self) -> str:
        body: Json = [self.agent, self.occurrence, self.action, self.ordinal]
        return "eff-" + hashlib.sha256(canonical_json(body)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling the gateway: one role of one run, pinned to one release.

    A person or a service that calls from outside a run is a principal too: its `agent` is
    `user:NAME` or `service:NAME`, its run is made from its token, and its release is `rel-none`.
    """

    run: RunId
    agent: AgentName
    team: TeamName
    role: str
    release: ReleaseDigest
    purpose: Purpose
    occurrence: Occurrence
    user: str | None = None
    """The person a run or a call is for, as the forge or the operator names them."""
    tags: tuple[str, ...] = ()
    """What budgets may match on besides; sorted."""


def canonical_json(value: Json) -> bytes:
    """The one byte form of a JSON value that digests are taken of (interlock.canonical/1).

    UTF-8, keys sorted by code point, no white space, no escapes beyond those JSON demands.
    Floats are refused (TypeError): their text form differs between writers; money and limits
    are integers, other decimals are strings. Same idea as RFC 8785, without its number rule.
    """
    _refuse_floats(value)
    return _CANONICAL.encode(value).encode()


_CANONICAL = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
)
_LEAVES = frozenset({str, int, bool, type(None)})
"""What needs no closer look: most values of any document."""


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError(f"a float has no canonical form: {value!r}; use an integer or a string")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a JSON key is a string, not {key!r}")
            if type(item) not in _LEAVES:
                _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            if type(item) not in _LEAVES:
                _refuse_floats(item)
    elif not (value is None or isinstance(value, bool | int | str)):
        raise TypeError(f"no canonical form for {type(value).__name__}")


def content_hash(value: Json) -> str:
    """SHA-256 (64 hex digits) of the canonical form."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def derived_id(prefix: str, *parts: str | int) -> str:
    """An identity that follows from what the thing is: `prefix-` + 16 hex digits.

    Deriving identities instead of drawing them makes creation idempotent: the same decision
    taken twice names the same row.
    """
    return f"{prefix}-{content_hash(list(parts))[:16]}"


def parse_usd(text: str | int | float | Decimal) -> NanoUSD:
    """Dollars as people write them (`3.00`, `$1,250`) to nano-dollars, rounded up.

    Commas only between groups of three digits: `3,00` is not taken for three hundred. ValueError
    for anything else, a negative amount, or one above `MOST_NANO`.
    """
    plain = str(text).replace("_", "").removeprefix("$")
    if _GROUPED.fullmatch(plain):
        plain = plain.replace(",", "")
    try:
        amount = Decimal(plain)
    except InvalidOperation:
        raise ValueError(f"not an amount of dollars: {text!r}") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"not an amount of dollars: {text!r}")
    # The exponent is looked at first: written out, 1e999999 would fill the memory.
    if not amount or amount.adjusted() < -9:
        return NanoUSD(1 if amount else 0)
    if amount.adjusted() > 9 or (nano := ceil(Fraction(amount) * NANO)) > MOST_NANO:
        raise ValueError(f"{text!r} is more than {MOST_NANO // NANO:,} dollars")
    return NanoUSD(nano)


def show_usd(amount: int) -> str:
    """The one place that renders money: `$3.00`, `$0.0042`, `$0.000013`; two significant digits."""
    sign, nano = ("-", -amount) if amount < 0 else ("", amount)
    if nano == 0 or nano >= NANO // 10:
        cents = (nano + 5_000_000) // 10_000_000
        return f"{sign}${cents // 100:,}.{cents % 100:02d}"
    digits = len(str(nano))
    places = min(9, 10 - digits + 1)
    unit = 10 ** (9 - places)
    return f"{sign}${Decimal((nano + unit // 2) // unit).scaleb(-places):.{places}f}"
