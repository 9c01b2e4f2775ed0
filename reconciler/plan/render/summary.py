"""The first line, and how money and owners are said: the same words in every rendering.

The line answers the three questions that decide whether a reviewer reads on: what can it newly do,
what can it newly cost, and who is asked.
"""

from __future__ import annotations

from gateway.values import show_usd
from reconciler.findings import Severity
from reconciler.plan.changes import Bill, Capability, Plan, Worst
from reconciler.plan.model import Subject
from reconciler.plan.phrases import listed, plural, tick
from reconciler.plan.trifecta import KIND as TRIFECTA
from reconciler.plan.weaker import TOLD

NOTHING = "Nothing changes"
MOST_NAMED = 3
LABELS = {
    TRIFECTA: "accepts a risk",
    TOLD: "weaker evals",
    "uncovered": "a rule falls away",
    "unknown": "unknown to this version",
}
_KINDS = ("new", "renamed", "changed", "removed")
_ONE = {
    "new": ("{} new agent", "{} new agents"),
    "renamed": ("{} agent is renamed", "{} agents are renamed"),
    "changed": ("{} agent changes", "{} agents change"),
    "removed": ("{} agent is removed", "{} agents are removed"),
}


def headline(plan: Plan) -> str:
    """One line in our own words, with values between backticks; parts are joined with ` · `."""
    if plan.empty:
        return f"{NOTHING}: what is live is what this asks for"
    parts = [_agents(plan), _settings(plan), _powers(plan), _loosened(plan), _money(plan)]
    leaking = sum(one.severity is Severity.ERROR for one in plan.leaks)
    if leaking:
        parts.append(f"{plural(leaking, 'agent')} could be made to send data away")
    if plan.collisions:
        parts.append(plural(len(plan.collisions), "collision"))
    if plan.broken:
        parts.append(f"{plural(len(plan.broken), 'agent')} in error")
    parts.append(who(plan))
    return " · ".join(part for part in parts if part)


def _agents(plan: Plan) -> str:
    kinds = [change.kind for change in plan.agents]
    counts = [(kinds.count(kind), kind) for kind in _KINDS if kind in kinds]
    told = ", ".join(_ONE[kind][count != 1].format(count) for count, kind in counts)
    if 0 < len(plan.agents) <= MOST_NAMED:
        return f"{told} ({', '.join(tick(change.name) for change in plan.agents)})"
    return told


def _settings(plan: Plan) -> str:
    if not plan.units:
        return ""
    verb = "changes" if len(plan.units) == 1 else "change"
    return f"{plural(len(plan.units), 'shared setting')} {verb}"


def _powers(plan: Plan) -> str:
    powers = headline_powers(plan.gained)
    return f"can newly: {powers}" if powers else ""


def _loosened(plan: Plan) -> str:
    """What is looser without being a power of an agent: limits, rules, people, evals."""
    powers = {(f"agent/{p.agent}", p.kind) for p in plan.gained if p.asked}
    other = [one for one in plan.loosenings if (one.scope, one.kind) not in powers]
    if not other:
        return ""
    scopes = list(dict.fromkeys(one.scope for one in other))
    texts = []
    for scope in scopes[:MOST_NAMED]:
        mine = [one for one in other if one.scope == scope]
        first = mine[0].text.removeprefix(f"{TOLD}: ")
        more = f" and {len(mine) - 1} more" if len(mine) > 1 else ""
        texts.append(f"{tick(scope)} ({label(mine[0].kind)}{first}{more})")
    left = len(scopes) - len(texts)
    return f"loosens {', '.join(texts)}" + (f" and {left} more" if left else "")


def label(kind: str) -> str:
    """What sort of loosening it is, where the sentence does not say so itself."""
    known = LABELS.get(kind, "weaker gate" if kind.startswith("rollout gate") else "")
    return f"{known}: " if known else ""


def headline_powers(gained: tuple[Capability, ...]) -> str:
    """The few that matter most: what is external comes first, each kind of thing once."""
    order = ("tool", "argument", "approval", "builtin", "role", "model")
    texts: list[str] = []
    for kind in order:
        for power in gained:
            short = _short(power)
            if power.kind == kind and short not in texts:
                texts.append(short)
    more = len(texts) - MOST_NAMED
    shown = ", ".join(texts[:MOST_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown


def _short(power: Capability) -> str:
    """Without conditions: `tracker.save_draft` (write)."""
    text = power.text.partition(" (was ")[0]
    if power.kind == "tool":
        head, _, rest = text.partition(" (")
        return f"{head} ({rest.partition(';')[0].rstrip(')')})"
    if power.kind == "model":
        return text.partition(" (")[0]
    return text


def _money(plan: Plan) -> str:
    money = plan.money
    if not money.bills:
        return ""
    if money.before != money.after:
        return f"worst case per day {usd(money.before)} → {usd(money.after)}"
    runs = [bill for bill in money.bills if _per_run(bill.before) != _per_run(bill.after)]
    if len(runs) == 1:
        bill = runs[0]
        return f"worst case per run {usd(_per_run(bill.before))} → {usd(_per_run(bill.after))}"
    return ""


def _per_run(worst: Worst | None) -> int | None:
    return worst.per_run if worst is not None else 0


def usd(amount: int | None) -> str:
    """Money, or that nothing limits it."""
    return "unlimited" if amount is None else show_usd(amount)


def who(plan: Plan) -> str:
    """Whose approval is needed, all together."""
    if not plan.subjects:
        return "needs no approval"
    sets = sorted({owners for subject in plan.subjects for owners in subject.owners})
    return f"needs approval of {listed([owners_told(owners) for owners in sets])}"


def owners_told(owners: tuple[str, ...]) -> str:
    """`@platform` or `@ines`; of several, one is enough."""
    if not owners:
        return "nobody (no owner)"
    return " or ".join(tick(f"@{owner.removeprefix('@')}") for owner in owners)


def subject_owners(subject: Subject) -> str:
    """Everybody of whom one is needed, set by set."""
    return listed([owners_told(owners) for owners in subject.owners])


def bill_told(bill: Bill) -> tuple[str, str]:
    """(per run, per day), each `before → after`; one value where both are the same."""
    runs = [_per_run(side) for side in (bill.before, bill.after)]
    days = [_day(side) for side in (bill.before, bill.after)]
    per_run = [usd(runs[0]) if bill.before else "–", usd(runs[1]) if bill.after else "–"]
    return _arrow(per_run), _arrow(days)


def _day(worst: Worst | None) -> str:
    if worst is None:
        return "–"
    if worst.runs is None:
        return "no schedule: per run only"
    how = f", capped by {tick(worst.capped_by)}" if worst.capped_by else ""
    return f"{usd(worst.per_day)} ({plural(worst.runs, 'run')}{how})"


def _arrow(values: list[str]) -> str:
    return values[0] if values[0] == values[1] else f"{values[0]} → {values[1]}"


def groups(plan: Plan) -> list[tuple[list[str], int]]:
    """Agents whose change is the same in every word, together: (names, index of the first).

    A skill that a hundred agents share is one change to read, not a hundred.
    """
    found: dict[object, tuple[list[str], int]] = {}
    for index, change in enumerate(plan.agents):
        key = (change.kind, change.former, change.leaves, change.settings)
        found.setdefault(key, ([], index))[0].append(change.name)
    return list(found.values())
