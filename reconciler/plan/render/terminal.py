"""The plan in a terminal: aligned, with `+`, `−` and `~`, as users of Terraform read it.

Colours are the caller's: `style(text, role)` gets our roles (`add`, `remove`, `change`, `title`,
`name`, `dim`, `ask`) and returns the text as it is to be printed. Without one it is plain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import wrap

from reconciler.findings import printable
from reconciler.plan.backtest import Backtest
from reconciler.plan.changes import AgentChange, Capability, LeafChange, Plan
from reconciler.plan.phrases import plural
from reconciler.plan.render import backtest as replayed
from reconciler.plan.render import summary
from reconciler.plan.weaker import TOLD
from reconciler.plan.words import Piece, compare_texts

Style = Callable[[str, str], str]

SIGNS = {"new": "+", "changed": "~", "renamed": "~", "removed": "−"}
ROLES = {"+": "add", "~": "change", "−": "remove"}
APPROVE = (
    "Approve with a comment /interlock approve on the pull request, or after the merge with\n"
    "interlock approve ID (interlock approvals lists them). Until then what is live stays."
)
MOST_LINES = 60
"""Lines of one word diff; `--format json` has all of it."""


def plain(text: str, _role: str) -> str:
    """No colour."""
    return text


def terminal(
    plan: Plan, *, backtest: Backtest | None = None, style: Style = plain, width: int = 100
) -> str:
    """The whole plan as lines of about `width` columns, ending in a line feed. `backtest` is what
    recent calls say of the change."""
    show = _Show(style, max(40, width))
    if plan.empty:
        nothing = f"{show.said(summary.headline(plan))}.\n"
        return f"{nothing}\n{show.backtest(backtest)}\n" if backtest else nothing
    parts = [
        show.agents(plan),
        show.powers("New capabilities", plan.gained, "+"),
        show.powers("Removed capabilities", plan.lost, "−"),
        show.money(plan),
        show.expected(plan, backtest) if backtest else "",
        show.units(plan),
        show.backtest(backtest) if backtest else "",
        show.findings(plan),
        show.needs(plan),
        show.last(plan),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


class _Show:
    """One rendering: the style and the width that its sections share."""

    def __init__(self, style: Style, width: int) -> None:
        self.style = style
        self.width = width

    def said(self, text: str) -> str:
        """One of the plan's sentences: values between backticks become names."""
        parts = printable(text).split("`")
        if len(parts) % 2 == 0:
            return printable(text)
        return "".join(self.style(p, "name") if n % 2 else p for n, p in enumerate(parts))

    def title(self, text: str) -> str:
        return self.style(text, "title")

    def row(self, sign: str, text: str, *, indent: int = 2) -> str:
        """A sign and a sentence, wrapped below itself."""
        marked = self.style(sign, ROLES.get(sign, "ask"))
        room = self.width - indent - 2
        # Wrapped before it is coloured: escape sequences have no width.
        first, *rest = _wrapped(text, room)
        lines = [f"{' ' * indent}{marked} {self.said(first)}"]
        lines += [f"{' ' * (indent + 2)}{self.said(line)}" for line in rest]
        return "\n".join(lines)

    def agents(self, plan: Plan) -> str:
        """What changes of each agent, and why its digest is another one."""
        if not plan.agents:
            return ""
        parts = [self.agent(plan.agents[index], names) for names, index in summary.groups(plan)]
        return "\n\n".join(parts)

    def agent(self, change: AgentChange, names: Sequence[str]) -> str:
        sign = SIGNS[change.kind]
        head = f"{self.style(sign, ROLES[sign])} {self.style(printable(change.name), 'name')}"
        told = {"renamed": f"renamed from {change.former}", "new": "new", "removed": "removed"}
        head += f" {printable(told.get(change.kind, 'changes'))}  {self.digests(change)}".rstrip()
        lines = [head]
        if len(names) > 1:
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            lines.append(self.style(f"  the same in {', '.join(names[1:6])}{more}", "dim"))
        lines += [self.row("~", text) for text in change.settings]
        for leaf in change.leaves:
            if leaf.prose:
                lines += [self.row("~", leaf.text), *self.prose(leaf)]
            else:
                lines.append(self.row("~", leaf.text))
        return "\n".join(lines)

    def digests(self, change: AgentChange) -> str:
        if change.before == change.after:
            return ""
        both = f"{change.before or 'nothing'} → {change.after or 'nothing'}"
        return self.style(printable(both), "dim")

    def prose(self, leaf: LeafChange) -> list[str]:
        lines: list[str] = []
        hunks = compare_texts(leaf.before, leaf.after)
        for number, hunk in enumerate(hunks):
            if number:
                lines.append(self.style("      ⋯", "dim"))
            for line in hunk.lines:
                if len(lines) == MOST_LINES:
                    left = sum(len(one.lines) for one in hunks) - MOST_LINES
                    note = f"      … {plural(max(1, left), 'more line')} (--format json has all)"
                    return [*lines, self.style(note, "dim")]
                lines.append("      " + "".join(self.piece(piece) for piece in line))
        return lines

    def piece(self, piece: Piece) -> str:
        """As `git diff --word-diff` marks words, so that it is read without colours too."""
        text = printable(piece.text) or ("" if piece.op == "same" else "¶")
        if piece.op == "removed":
            return self.style(f"[-{text}-]", "remove")
        if piece.op == "added":
            return self.style(f"{{+{text}+}}", "add")
        return text

    def powers(self, title: str, powers: Sequence[Capability], sign: str) -> str:
        if not powers:
            return ""
        lines, last = [self.title(title)], ""
        for power in powers:
            who = power.agent if power.role == "main" else f"{power.agent}/{power.role}"
            if who != last:
                lines.append(f"  {self.style(printable(who), 'name')}")
            last = who
            lines.append(self.row(sign, power.text, indent=4))
        return "\n".join(lines)

    def money(self, plan: Plan) -> str:
        if not plan.money.bills:
            return ""
        rows = [("", "per run", "per day")]
        rows += [(bill.agent, *summary.bill_told(bill)) for bill in plan.money.bills]
        total = [summary.usd(plan.money.before), summary.usd(plan.money.after)]
        rows.append(("fleet", "", total[0] if total[0] == total[1] else " → ".join(total)))
        return self.table("Money, at worst", rows)

    def expected(self, plan: Plan, backtest: Backtest) -> str:
        """What recent runs would cost, beside the bounds."""
        found = backtest.expected(plan)
        if not found:
            return ""
        rows = [("agent", "from", "per day")]
        rows += [
            (one.agent, plural(one.runs, "run"), replayed.expected(one, backtest)) for one in found
        ]
        every = plural(backtest.outcome.runs, "run")
        rows.append(("all agents", every, replayed.expected_of_all(backtest)))
        return self.table("Money, expected", rows)

    def table(self, title: str, rows: Sequence[tuple[str, str, str]]) -> str:
        """Three aligned columns; the first row is their head."""
        bare = [tuple(printable(cell).replace("`", "") for cell in row) for row in rows]
        widths = [max(len(row[i]) for row in bare) for i in range(3)]
        lines = [self.title(title)]
        for number, row in enumerate(bare):
            text = "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip()
            lines.append("  " + (self.style(text, "dim") if number == 0 else text))
        return "\n".join(lines)

    def backtest(self, backtest: Backtest) -> str:
        """What recent calls say of it."""
        lines = [self.title("Backtest")]
        lines += [f"  {self.said(line)}" for line in
                  _wrapped(replayed.headline(backtest), self.width - 2)]  # fmt: skip
        last = ""
        for row in replayed.rows(backtest):
            if row.agent != last:
                lines.append(f"  {self.style(printable(row.agent), 'name')}")
                last = row.agent
            such = f", such as {', '.join(row.examples)}" if row.examples else ""
            text = f"{plural(row.calls, 'call')}: {row.text}{such}"
            lines.append(self.row(row.sign, text, indent=4))
        lines += [self.style(f"  {note}", "dim") for note in replayed.notes(backtest)]
        return "\n".join(lines)

    def units(self, plan: Plan) -> str:
        if not plan.units:
            return ""
        lines = [self.title("Shared settings")]
        for change in plan.units:
            sign = SIGNS[change.kind]
            name = self.style(printable(change.name), "name")
            lines.append(f"  {self.style(sign, ROLES[sign])} {name}")
            for text, looser in zip(change.texts, change.looser, strict=True):
                lines.append(self.row("!" if looser else "~", text, indent=4))
        return "\n".join(lines)

    def findings(self, plan: Plan) -> str:
        lines: list[str] = []
        for title, found in (
            ("Lethal trifecta", plan.leaks),
            ("Collisions", plan.collisions),
        ):
            if found:
                lines += [self.title(title), *(f"  {finding}" for finding in found)]
        if plan.broken:
            lines += [self.title("In error; what is live stays")]
            for name, findings in plan.broken.items():
                lines += [f"  {printable(name)}: {finding}" for finding in findings[:1]]
        return "\n".join(lines)

    def needs(self, plan: Plan) -> str:
        if not plan.subjects:
            return ""
        lines = [self.title("Needs approval")]
        for subject in plan.subjects:
            scope = self.style(printable(subject.scope), "name")
            lines.append(f"  {scope}  of {self.said(summary.subject_owners(subject))}")
            for one in subject.loosenings:
                where = f" (stricter in {one.stricter})" if one.stricter else ""
                text = one.text.removeprefix(f"{TOLD}: ")
                lines.append(self.row("!", f"{summary.label(one.kind)}{text}{where}", indent=4))
        return "\n".join(lines)

    def last(self, plan: Plan) -> str:
        lines = [self.said(line) for line in _wrapped(summary.headline(plan), self.width)]
        if plan.subjects:
            lines.append(self.style(APPROVE, "dim"))
        return "\n".join(lines)


def _wrapped(text: str, room: int) -> list[str]:
    """Lines of at most `room` columns; a value between backticks is not torn apart."""
    glue = "\u00a0"
    parts = printable(text).split("`")
    joined = "`".join(p.replace(" ", glue) if n % 2 else p for n, p in enumerate(parts))
    found = wrap(joined, room, break_long_words=False, break_on_hyphens=False) or [""]
    return [line.replace(glue, " ") for line in found]
