"""The plan as a comment on a pull request: what decides first, what explains it behind a fold.

The order is that of a reviewer's questions: one line that sums it up, whom it needs and how they
say yes, what it can newly do, what it costs, then why. Forges cut or refuse long comments, so the
comment is fitted into `LIMIT`: word diffs are shortened first, then lists; who is needed never.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.findings import Finding, Place
from reconciler.plan.backtest import Backtest
from reconciler.plan.changes import AgentChange, Capability, LeafChange, Plan, UnitChange
from reconciler.plan.model import Loosening, Subject
from reconciler.plan.phrases import plural, tick
from reconciler.plan.render import backtest as replayed
from reconciler.plan.render import summary
from reconciler.plan.render.escape import html, sentence, words
from reconciler.plan.weaker import TOLD
from reconciler.plan.words import Hunk, compare_texts

MARKER = "<!-- interlock:plan -->"
"""First line of the comment: by it the comment of the last plan is found and replaced."""
LIMIT = 65_536
"""Characters of a comment on GitHub; other forges take more."""
COMMAND = "/interlock approve"

_TAGS = {"same": "", "removed": "del", "added": "ins"}


@dataclass(frozen=True, slots=True)
class Fit:
    """How much is shown: characters of one word diff, and rows of one list."""

    text: int
    rows: int


_FITS = (
    Fit(6_000, 200),
    Fit(2_000, 100),
    Fit(600, 60),
    Fit(0, 40),
    Fit(0, 15),
    Fit(0, 5),
)


def comment(
    plan: Plan,
    *,
    gate: str = "",
    live: str = "",
    backtest: Backtest | None = None,
    limit: int = LIMIT,
) -> str:
    """The whole comment, never longer than `limit` characters, ending in a line feed.

    `gate` is Markdown of the caller (the verdicts, or what they will cost), shown as it is. `live`
    says what the plan was compared with, in the caller's plain words. `backtest` is what recent
    calls say of the change.
    """
    for fit in _FITS:
        text = _comment(plan, fit, gate=gate, live=live, backtest=backtest)
        if len(text) <= limit:
            return text
    # What decides is short by now; only an endless list of subjects or a gate could still be long.
    short = _comment(plan, _FITS[-1], gate="", live=live, backtest=None)
    note = "\n\n… cut here; `interlock plan` shows the rest.\n"
    return short if len(short) <= limit else short[: limit - len(note)] + note


def _comment(plan: Plan, fit: Fit, *, gate: str, live: str, backtest: Backtest | None) -> str:
    parts = [MARKER, f"### Interlock plan\n\n{_headline(plan)}"]
    if not plan.empty:
        parts += [
            *_needs(plan, fit),
            *_findings("Lethal trifecta", plan.leaks, fit),
            *_findings("Collisions", plan.collisions, fit),
            *_broken(plan, fit),
            *_capabilities("New capabilities", "can newly", plan.gained, fit),
            *_capabilities("Removed capabilities", "can no longer", plan.lost, fit),
            *_money(plan, fit),
            *(_expected(plan, backtest, fit) if backtest else ()),
            *_units(plan, fit),
            *_behaviour(plan, fit),
        ]
    if backtest:
        parts.append(_backtest(backtest, fit))
    if gate:
        parts.append(f"#### Gate\n\n{gate.strip()}")
    against = f" against {words(live)}" if live else ""
    parts.append(f"<sub>plan {words(plan.digest[:12])}{against}</sub>")
    return "\n\n".join(parts) + "\n"


def _headline(plan: Plan) -> str:
    text = sentence(summary.headline(plan))
    first, separator, rest = text.partition(" · ")
    return f"**{first}**{separator}{rest}"


def _needs(plan: Plan, fit: Fit) -> list[str]:
    """Who must say yes to what, and how. Rows are cut last: the command stands in any case."""
    if not plan.subjects:
        return []
    most = max(fit.rows, 20)
    rows = [_need(subject) for subject in plan.subjects[:most]]
    left = len(plan.subjects) - most
    if left > 0:
        rows.append(f"| … | {plural(left, 'more scope')} | {sentence(summary.who(plan))} |")
    table = "\n".join(["| scope | what is loosened | needs |", "|---|---|---|", *rows])
    how = (
        f"Comment `{COMMAND}` to approve all that you own here,"
        f" or `{COMMAND} SCOPE` for one of them. Until then what is live stays in force."
    )
    nobody = [s.scope for s in plan.subjects if any(not owners for owners in s.owners)]
    if nobody:
        how += (
            f" Nobody owns the files of {sentence(', '.join(tick(n) for n in nobody[:5]))}:"
            " an operator decides about them with `interlock approve`."
        )
    return [f"#### Needs approval\n\n{table}\n\n{how}"]


def _need(subject: Subject) -> str:
    shown = subject.loosenings[:8]
    places = {one.stricter for one in subject.loosenings}
    alone = next(iter(places)) if len(places) == 1 else None
    what = [_loosening(one, told=alone is not None) for one in shown]
    if len(subject.loosenings) > len(shown):
        what.append(f"… and {len(subject.loosenings) - len(shown)} more")
    scope = sentence(tick(subject.scope)) + (f"<br>{_stricter(alone)}" if alone else "")
    owners = sentence(summary.subject_owners(subject))
    return f"| {scope} | {'<br>'.join(what)} | {owners} |"


def _loosening(one: Loosening, *, told: bool) -> str:
    where = f" {_stricter(one.stricter)}" if one.stricter and not told else ""
    kind = summary.label(one.kind)
    mark = f"**{kind.rstrip()}** " if kind else ""
    return f"{mark}{sentence(one.text.removeprefix(f'{TOLD}: '))}{where}"


def _stricter(place: Place) -> str:
    """Where the stricter value stands. 1:1 is a file of which no more is known."""
    shown = place.file if (place.line, place.column) == (1, 1) else place
    return f"<sub>stricter in {sentence(tick(shown))}</sub>"


def _findings(title: str, findings: Sequence[Finding], fit: Fit) -> list[str]:
    if not findings:
        return []
    return [f"#### {title}\n\n{_list(map(_finding, findings), len(findings), fit)}"]


def _broken(plan: Plan, fit: Fit) -> list[str]:
    if not plan.broken:
        return []
    rows = [
        f"{sentence(tick(name))} keeps what is live: {_finding(findings[0])}"
        if findings
        else f"{sentence(tick(name))} keeps what is live"
        for name, findings in plan.broken.items()
    ]
    return [f"#### In error\n\n{_list(rows, len(rows), fit)}"]


def _finding(finding: Finding) -> str:
    fix = f"; {finding.fix}" if finding.fix else ""
    return f"{sentence(tick(finding.place))} {words(f'{finding.message}{fix}')}"


def _capabilities(title: str, verb: str, powers: Sequence[Capability], fit: Fit) -> list[str]:
    if not powers:
        return []
    rows, last = [], None
    for power in powers[: fit.rows]:
        who = (power.agent, power.role)
        name = tick(power.agent) if power.role == "main" else tick(f"{power.agent}/{power.role}")
        rows.append(f"| {sentence(name) if who != last else ''} | {sentence(power.text)} |")
        last = who
    if len(powers) > fit.rows:
        rows.append(f"| … | {len(powers) - fit.rows} more |")
    table = "\n".join([f"| agent | {verb} |", "|---|---|", *rows])
    return [f"#### {title}\n\n{table}"]


def _money(plan: Plan, fit: Fit) -> list[str]:
    money = plan.money
    if not money.bills:
        return []
    rows = []
    for bill in money.bills[: fit.rows]:
        run, day = summary.bill_told(bill)
        rows.append(f"| {sentence(tick(bill.agent))} | {sentence(run)} | {sentence(day)} |")
    if len(money.bills) > fit.rows:
        rows.append(f"| … | {len(money.bills) - fit.rows} more | |")
    total = f"{summary.usd(money.before)} → {summary.usd(money.after)}"
    if money.before == money.after:
        total = summary.usd(money.after)
    rows.append(f"| **fleet** (scheduled) | | **{sentence(total)}** |")
    table = "\n".join(["| agent | per run | per day |", "|---|---|---|", *rows])
    return [f"#### Money, at worst\n\n{table}"]


def _expected(plan: Plan, backtest: Backtest, fit: Fit) -> list[str]:
    """What the money section says beside the bounds: what recent runs would cost."""
    found = backtest.expected(plan)
    if not found:
        return []
    rows = [
        f"| {sentence(tick(one.agent))} | {plural(one.runs, 'run')}"
        f" | {sentence(replayed.expected(one, backtest))} |"
        for one in found[: fit.rows]
    ]
    if len(found) > fit.rows:
        rows.append(f"| … | {len(found) - fit.rows} more | |")
    total = sentence(replayed.expected_of_all(backtest))
    rows.append(f"| **all agents** | {plural(backtest.outcome.runs, 'run')} | **{total}** |")
    table = "\n".join(["| agent | from | per day |", "|---|---|---|", *rows])
    return [f"#### Money, expected\n\n{table}"]


def _backtest(backtest: Backtest, fit: Fit) -> str:
    found = list(replayed.rows(backtest))
    parts = [f"#### Backtest\n\n{sentence(replayed.headline(backtest))}."]
    if found:
        rows = [_replayed(row) for row in found[: fit.rows]]
        if len(found) > fit.rows:
            rows.append(f"| … | | {len(found) - fit.rows} more | |")
        parts.append("\n".join(["| agent | calls | what | such as |", "|---|---|---|---|", *rows]))
    notes = "; ".join(replayed.notes(backtest))
    if notes:
        parts.append(f"<sub>{sentence(notes)}</sub>")
    return "\n\n".join(parts)


def _replayed(row: replayed.Row) -> str:
    examples = ", ".join(sentence(tick(key)) for key in row.examples)
    agent = sentence(tick(row.agent))
    return f"| {agent} | {row.sign} {row.calls:,} | {sentence(row.text)} | {examples} |"


def _units(plan: Plan, fit: Fit) -> list[str]:
    if not plan.units:
        return []
    rows = [_unit(change) for change in plan.units]
    return [f"#### Shared settings\n\n{_list(rows, len(rows), fit)}"]


def _unit(change: UnitChange) -> str:
    texts = [
        f"{sentence(text)}{' **looser**' if looser else ''}"
        for text, looser in zip(change.texts[:12], change.looser, strict=False)
    ]
    more = len(change.texts) - len(texts)
    return f"{sentence(tick(change.name))}: {'; '.join(texts)}" + (
        f" and {more} more" if more > 0 else ""
    )


def _behaviour(plan: Plan, fit: Fit) -> list[str]:
    if not plan.agents:
        return []
    grouped = summary.groups(plan)
    shown = grouped[: fit.rows]
    parts = [_agent(plan.agents[index], names, fit) for names, index in shown]
    if len(grouped) > len(shown):
        parts.append(f"… and {plural(len(grouped) - len(shown), 'other change')} of agents.")
    return ["#### Behaviour", *parts]


def _agent(change: AgentChange, names: Sequence[str], fit: Fit) -> str:
    head = f"**{sentence(tick(change.name))}** {_kind(change)}{_digests(change)}"
    if len(names) > 1:
        others = ", ".join(sentence(tick(name)) for name in names[1:6])
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        head += f"; the same in {others}{more}"
    lines = [head]
    rows = [sentence(text) for text in change.settings]
    rows += [sentence(leaf.text) for leaf in change.leaves if not leaf.prose]
    if rows:
        lines.append(_list(rows, len(rows), fit))
    lines += [_prose(leaf, fit) for leaf in change.leaves if leaf.prose]
    return "\n\n".join(lines)


def _kind(change: AgentChange) -> str:
    if change.kind == "renamed" and change.former is not None:
        return f"renamed from {sentence(tick(change.former))}"
    return {"new": "is new", "removed": "is removed"}.get(change.kind, "changes")


def _digests(change: AgentChange) -> str:
    if change.before and change.after and change.before != change.after:
        return f" ({words(change.before)} → {words(change.after)})"
    if change.before == change.after:
        return " (same release)"
    return f" ({words(change.before or change.after)})"


def _prose(leaf: LeafChange, fit: Fit) -> str:
    hunks = compare_texts(leaf.before, leaf.after)
    counted = [sum(len(p.text.split()) for hunk in hunks for line in hunk.lines for p in line
                   if p.op == op) for op in ("removed", "added")]  # fmt: skip
    count = f"−{counted[0]} +{counted[1]} words"
    body, cut = _pre(hunks, fit.text)
    title = f"{sentence(leaf.text)} ({count})"
    if not body:
        return f"- {title}: too long for this comment, see `interlock plan`"
    note = "\n\nCut here; `interlock plan` shows the rest." if cut else ""
    # A blank line after the summary lets the forge render what follows as a block of its own.
    return f"<details{' open' if len(body) < 1500 else ''}><summary>{_summary(leaf, count)}" + (
        f"</summary>\n\n<pre>{body}</pre>{note}\n\n</details>"
    )


def _summary(leaf: LeafChange, count: str) -> str:
    """Within HTML backticks stay backticks: code is a tag there."""
    parts = leaf.text.split("`")
    told = "".join(f"<code>{html(p)}</code>" if n % 2 else html(p) for n, p in enumerate(parts))
    return f"{told} ({count})"


def _pre(hunks: Iterable[Hunk], most: int) -> tuple[str, bool]:
    """The hunks as preformatted HTML of about `most` characters, and whether something was cut."""
    lines: list[str] = []
    size = 0
    for number, hunk in enumerate(hunks):
        if number:
            lines.append("⋯")
        for line in hunk.lines:
            made = "".join(_piece(piece.op, piece.text) for piece in line)
            if size + len(made) > most:
                return "\n".join(lines), True
            size += len(made) + 1
            lines.append(made)
    return "\n".join(lines), False


def _piece(op: str, text: str) -> str:
    tag = _TAGS[op]
    # An empty line that came or went is seen only if something stands in it.
    shown = html(text) or ("¶" if tag else "")
    return f"<{tag}>{shown}</{tag}>" if tag else shown


def _list(rows: Iterable[str], count: int, fit: Fit) -> str:
    shown = [f"- {row}" for _, row in zip(range(fit.rows), rows, strict=False)]
    if count > len(shown):
        shown.append(f"- … and {count - len(shown)} more")
    return "\n".join(shown)
