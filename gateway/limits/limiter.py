"""Rate limits: a meter for each rule and scope, and all of a call's meters or none.

The algorithm is GCRA in its second form, the continuous-state leaky bucket (ITU-T I.371, annex A;
the form with a theoretical arrival time decides the same). A meter is a bucket that every admitted
call fills by its size and that drains at the rule's rate; a call whose size does not fit is
refused. So over *any* span of t milliseconds no more is admitted than

    burst + limit · t / window

and not less either, if it is asked for: there is no window that begins and could be waited for.

All arithmetic is in integers, so that a wait is exact to the millisecond. The unit is one
`window`-th of a request (or token) per millisecond: a request fills by `window_ms`, and the bucket
drains by `limit` each millisecond. Pure: the time is passed in. A clock that steps back only
drains nothing for that step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal, NamedTuple

from gateway.policy import RateLimit
from gateway.refusals import Code, Refusal
from gateway.values import Millis, content_hash

Counted = Literal["requests", "tokens"]

_MOST = 4096
"""Kinds of calls remembered with the rules that match them, and meters kept before empty ones are
dropped: an empty meter says nothing that a new one would not."""


class Traits(NamedTuple):
    """What rules look at in a call. A tuple, because it is looked up for every call.

    `models` are the names a model call goes by: what was asked for, and the target that is to
    serve it. A tool call has `tool` (`server.tool`) instead.
    """

    agent: str
    team: str
    models: tuple[str, ...] = ()
    tool: str | None = None


class MeterRow(NamedTuple):
    """A meter on disk: it is empty at `tat` (milliseconds; GCRA's theoretical arrival time)."""

    rule: str
    scope: str
    tat: Millis


@dataclass(frozen=True, slots=True)
class Refused:
    """The rule that has no room, or of several the one that has room last.

    `left` is how much it would admit now, in requests or tokens. After `wait_ms`, and not a
    millisecond before, it admits the same call, unless others come first; None: it never does,
    because the call is larger than all that may come at once.
    """

    rule: str
    counted: Counted
    limit: int
    window_ms: Millis
    left: int
    wait_ms: int | None

    @property
    def retry_after(self) -> int | None:
        """Seconds, rounded up, as the header of that name has them."""
        return None if self.wait_ms is None else -(-self.wait_ms // 1000)

    def refusal(self) -> Refusal:
        """What the caller hears: rule, what is left, and when to come back."""
        text = (
            f"rate limit `{self.rule}` ({self.limit} {self.counted} per {_window(self.window_ms)}) "
            f"has no room for this call: {self.left} {self.counted} are left"
        )
        if self.wait_ms is None:
            text += (
                ", and it would not fit later either. Ask for less at once (a lower limit of "
                "output tokens, a shorter prompt), or raise the rate limit."
            )
        else:
            text += f". Try again in {self.retry_after} s."
        return Refusal(
            Code.RATE_LIMITED,
            text,
            rule=self.rule,
            left_requests=self.left if self.counted == "requests" else None,
            left_tokens=self.left if self.counted == "tokens" else None,
            retry_after=self.retry_after,
        )


class _Taken(NamedTuple):
    """What one meter was filled by: `size`, and where that lies in all that ever flows out."""

    meter: _Meter
    size: int
    mark: int


class Admitted(NamedTuple):
    """A call that may be made. `over` are the audit rules that would have refused it."""

    taken: tuple[_Taken, ...]
    over: tuple[Refused, ...]


_FREELY = Admitted((), ())


class _Meter:
    """One rule's bucket for one scope. `passed` is all that has left it so far, for `give_back`."""

    __slots__ = (
        "at",
        "counted",
        "enforced",
        "key",
        "level",
        "limit",
        "name",
        "passed",
        "room",
        "unit",
    )

    def __init__(self, key: tuple[str, str], at: int) -> None:
        self.key = key
        self.at = at
        self.level = 0
        self.passed = 0

    def follow(self, rule: RateLimit, counted: Counted) -> None:
        """Measure by this rule from now on; what is in the bucket stays in it."""
        limit = rule.requests if counted == "requests" else rule.tokens
        assert limit is not None
        # `burst` counts calls, so it says nothing about tokens.
        burst = limit if counted == "tokens" or rule.burst is None else rule.burst
        self.name = rule.name
        self.counted: Counted = counted
        self.enforced = rule.mode == "enforce"
        self.limit = limit
        self.unit = rule.window_ms
        self.room = burst * self.unit if limit else 0

    def drain(self, now: int) -> None:
        """Let out what has flowed off since the last time."""
        gone = (now - self.at) * self.limit
        self.at = now
        if gone > 0 and self.level:
            if gone > self.level:
                gone = self.level
            self.level -= gone
            self.passed += gone

    def give_back(self, taken: _Taken, size: int) -> None:
        """Take `size` of what `taken` put in out again, as far as it is still there.

        The bucket is a queue: what a call put in lies behind all that was in it then. What has
        flowed off cannot come back, or calls admitted since would have been admitted twice.
        Whatever else was given back meanwhile counts as if it had lain in front, which is never
        too generous.
        """
        still = min(taken.size, taken.mark - self.passed, self.level)
        back = min(size, still)
        if back > 0:
            self.level -= back
            self.passed += back

    def refused(self, size: int) -> Refused:
        """Why `size` does not fit now."""
        missing = self.level + size - self.room
        never = size > self.room or not self.limit
        return Refused(
            rule=self.name,
            counted=self.counted,
            limit=self.limit,
            window_ms=Millis(self.unit),
            left=max(0, self.room - self.level) // self.unit,
            wait_ms=None if never else -(-missing // self.limit),
        )


class Limiter:
    """The rate limits of one process. One per process; belongs to its event loop.

    Meters are kept by the identity of their rule (name, window, what it matches) and survive a
    change of policy: a changed limit holds at once, for what has been admitted already too.
    """

    def __init__(self) -> None:
        self._rules: tuple[RateLimit, ...] = ()
        self._matching: dict[Traits, tuple[_Meter, ...]] = {}
        self._meters: dict[tuple[str, str], _Meter] = {}
        self._stored: dict[tuple[str, str], Millis] = {}
        self._most = _MOST

    def admit(
        self, rules: tuple[RateLimit, ...], traits: Traits, *, tokens: int, now: Millis
    ) -> Admitted | Refused:
        """Fill the meters of all matching rules, or of none when an enforced one has no room.

        `rules` are the policy's (`Policy.rate_limits`; the same tuple as long as the policy is
        the same one). `tokens` is what the call may use at most: estimated input and clamped
        output. It counts for model calls only.
        """
        if rules is not self._rules:
            self._rules = rules
            self._matching.clear()
        meters = self._matching.get(traits)
        if meters is None:
            meters = self._find(traits, now)
        if not meters:
            return _FREELY
        taken: list[_Taken] = []
        refused: Refused | None = None
        over: list[Refused] = []
        for meter in meters:
            meter.drain(now)
            size = meter.unit if meter.counted == "requests" else tokens * meter.unit
            level = meter.level + size
            if level <= meter.room:
                taken.append(_Taken(meter, size, meter.passed + level))
            elif meter.enforced:
                refused = _later(refused, meter.refused(size))
            else:
                over.append(meter.refused(size))
        if refused is not None:
            return refused
        for meter, size, _ in taken:
            meter.level += size
        return Admitted(tuple(taken), tuple(over))

    def correct(self, admitted: Admitted, tokens_used: int, now: Millis) -> None:
        """The tokens were an estimate, and now they are known. Once for each admission.

        Less: what has not flowed off yet is given back. More: it is taken without being asked
        for, and the next calls wait for it.
        """
        for taken in admitted.taken:
            if taken.meter.counted == "tokens":
                self._settle(taken, tokens_used * taken.meter.unit, now)

    def release(self, admitted: Admitted, now: Millis) -> None:
        """The call was never sent: give all of it back. Instead of `correct`."""
        for taken in admitted.taken:
            self._settle(taken, 0, now)

    def _settle(self, taken: _Taken, used: int, now: int) -> None:
        # A meter that was empty may have been dropped meanwhile; a debt must not go with it.
        meter = self._meters.setdefault(taken.meter.key, taken.meter)
        meter.drain(now)
        if used > taken.size:
            meter.level += used - taken.size
        elif meter is taken.meter:
            meter.give_back(taken, taken.size - used)

    def dump(self, now: Millis) -> list[MeterRow]:
        """Every meter that is not empty, for `load` after a restart."""
        rows = [MeterRow(*key, tat) for key, tat in self._stored.items() if tat > now]
        for meter in self._meters.values():
            meter.drain(now)
            if meter.level and meter.limit:
                tat = Millis(now + -(-meter.level // meter.limit))
                rows.append(MeterRow(*meter.key, tat))
        return rows

    def load(self, rows: Iterable[MeterRow]) -> None:
        """Go on from what was dumped. Before the first call; rows of unknown rules do no harm."""
        self._stored = {(row.rule, row.scope): row.tat for row in rows}

    def _find(self, traits: Traits, now: Millis) -> tuple[_Meter, ...]:
        """The meters of a kind of call, made and brought up to date with their rules."""
        if len(self._matching) >= _MOST:
            self._matching.clear()
        found: dict[tuple[str, str], _Meter] = {}
        for rule in self._rules:
            if not _matches(rule, traits):
                continue
            scope = traits.agent if rule.each_agent else "*"
            for counted in _counts(rule, traits):
                key = (rule_id(rule, counted), scope)
                meter = self._meters.get(key)
                if meter is None:
                    meter = self._meter(key, rule, counted, now)
                else:
                    # Up to now it drained by what was asked until now.
                    meter.drain(now)
                    meter.follow(rule, counted)
                found[key] = meter
        self._matching[traits] = meters = tuple(found.values())
        return meters

    def _meter(
        self, key: tuple[str, str], rule: RateLimit, counted: Counted, now: Millis
    ) -> _Meter:
        if len(self._meters) >= self._most:
            self._sweep(now)
        meter = self._meters[key] = _Meter(key, now)
        meter.follow(rule, counted)
        ahead = max(0, self._stored.pop(key, now) - now) * meter.limit
        # No more than a full bucket: the clock may have been set back in between.
        meter.level = min(ahead, meter.room)
        return meter

    def _sweep(self, now: Millis) -> None:
        for key, meter in list(self._meters.items()):
            meter.drain(now)
            if not meter.level:
                del self._meters[key]
        self._matching.clear()
        self._most = max(_MOST, 2 * len(self._meters))


@lru_cache(maxsize=1024)
def rule_id(rule: RateLimit, counted: Counted) -> str:
    """Identity of a rule's meters: its name, and a hash of what it matches over which window."""
    match = rule.match
    parts = [rule.window_ms, match.agent, match.team, match.model, match.tool, rule.each_agent]
    return f"{rule.name}#{content_hash([str(part) for part in parts])[:8]}.{counted}"


def _matches(rule: RateLimit, traits: Traits) -> bool:
    match = rule.match
    return (
        fnmatchcase(traits.agent, match.agent)
        and fnmatchcase(traits.team, match.team)
        and (match.model is None or any(fnmatchcase(name, match.model) for name in traits.models))
        and (
            match.tool is None or (traits.tool is not None and fnmatchcase(traits.tool, match.tool))
        )
    )


def _counts(rule: RateLimit, traits: Traits) -> Iterator[Counted]:
    if rule.requests is not None:
        yield "requests"
    if rule.tokens is not None and traits.tool is None:
        yield "tokens"


def _later(a: Refused | None, b: Refused) -> Refused:
    """Of two refusals the one that lasts longer."""
    if a is None or b.wait_ms is None:
        return b
    return a if a.wait_ms is None or a.wait_ms >= b.wait_ms else b


def _window(window_ms: int) -> str:
    names = {1000: "second", 60_000: "minute", 3_600_000: "hour", 86_400_000: "day"}
    return names.get(window_ms, f"{window_ms} ms")
