"""Whether a suite asks for less than the one that is live.

A suite is the gate's evidence: an easier one lets a worse release pass. What can be seen to ask
for more is free; a changed task, check or recorded answer might be easier, so it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.values import Json
from reconciler.plan import phrases
from reconciler.plan.directions import higher
from reconciler.plan.phrases import plural, record, tick, ticks

TOLD = "evals"


def weaker(before: Json, after: Json) -> tuple[str, ...]:
    """Every way in which the outline `after` asks for less than `before`, in sentences."""
    if before is None:
        return ()
    if after is None:
        count = len(record(record(before).get("cases")))
        return (f"the suite of {plural(count, 'case')} is gone",)
    return tuple(_weaker(record(before), record(after)))


def stronger(before: Json, after: Json) -> tuple[str, ...]:
    """What the outline `after` asks for in addition."""
    if after is None:
        return ()
    old, new = record(before), record(after)
    found = []
    for kind in ("cases", "sentinels"):
        added = sorted(set(record(new.get(kind))) - set(record(old.get(kind))))
        if added:
            count = plural(len(added), f"{kind[:-1]} more", f"{kind} more")
            found.append(f"{count}: {ticks(added)}")
    return tuple(found)


def _weaker(old: Mapping[str, Json], new: Mapping[str, Json]) -> Iterator[str]:
    cases, now = record(old.get("cases")), record(new.get("cases"))
    gone = sorted(set(cases) - set(now))
    if gone:
        yield f"{plural(len(gone), 'case')} removed: {ticks(gone)}"
    added = len(set(now) - set(cases))
    if added > len(cases):
        yield f"{plural(added, 'case')} added to {len(cases)}: those that were there count for less"
    critical = [c for c in gone if record(cases[c]).get("critical")]
    if critical:
        yield f"{plural(len(critical), 'critical case')} removed: {ticks(critical)}"
    for name in sorted(set(cases) & set(now)):
        if cases[name] != now[name]:
            yield from _case(name, record(cases[name]), record(now[name]))
    sentinels, kept = record(old.get("sentinels")), record(new.get("sentinels"))
    gone = sorted(set(sentinels) - set(kept))
    if gone:
        yield f"{plural(len(gone), 'sentinel')} removed: {ticks(gone)}"
    changed = sorted(s for s in set(sentinels) & set(kept) if sentinels[s] != kept[s])
    if changed:
        yield f"{plural(len(changed), 'sentinel')} changed: {ticks(changed)}"


def _case(name: str, old: Mapping[str, Json], new: Mapping[str, Json]) -> Iterator[str]:
    case = f"case {tick(name)}"
    if old.get("critical") and not new.get("critical"):
        yield f"{case} is not critical any more"
    if old.get("task") != new.get("task"):
        yield f"{case} has another task"
    if old.get("recorded") != new.get("recorded"):
        yield f"{case} has other recorded answers of tools"
    checks, now = record(old.get("checks")), record(new.get("checks"))
    gone = sorted(set(checks) - set(now))
    if gone:
        yield f"{case} is not checked by {ticks(gone)} any more"
    changed = sorted(check for check in set(checks) & set(now) if checks[check] != now[check])
    if changed:
        yield f"{case} is checked differently by {ticks(changed)}"
    for limit, say in (("max_cost", phrases.money), ("max_steps", phrases.number)):
        if old.get(limit) != new.get(limit) and higher(old.get(limit), new.get(limit)):
            yield f"{case} allows {limit} {say(old.get(limit))} → {say(new.get(limit))}"
