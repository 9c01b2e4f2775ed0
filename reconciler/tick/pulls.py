"""Pull requests: a plan as their one comment, a gate for their head, and what people answer.

Looked at when something about them, the watched branch or what is live has changed. The plan is of
the merge result against what is live. The gate takes agents and skills from the head and all else
(providers, images, limits, commands) from the base: a head never chooses where a secret goes or
what runs on the host. A comment's commands are carried out once, in the name of who wrote it.
"""

from __future__ import annotations

from dataclasses import replace

from gateway import access
from gateway.values import AgentName
from reconciler.approvals import decide
from reconciler.approvals import store as approvals
from reconciler.findings import Finding, Severity, render, tidy
from reconciler.forge.model import (
    Forge,
    ForgeError,
    ForgeUnavailable,
    Pull,
    SetStatus,
    StatusState,
    UpsertComment,
)
from reconciler.plan import Plan, Subject, collisions_of
from reconciler.plan.backtest import DAY_MS, enforced_differs, policies_of
from reconciler.plan.render import comment as plan_comment
from reconciler.plan.render.escape import code
from reconciler.plan.render.summary import headline
from reconciler.record import audit, recorded
from reconciler.source.errors import SourceError
from reconciler.source.grafted import GraftedTree
from reconciler.source.merging import merge_result
from reconciler.source.mirror import GitTree
from reconciler.source.objects import CommitId, ObjectId
from reconciler.tick import judging
from reconciler.tick.admitted import plan_between
from reconciler.tick.comments import listen, may_gate, show
from reconciler.tick.compiling import compile_tree
from reconciler.tick.context import Context, Declared, Looked, Replayed
from reconciler.tick.force import desired_side, live_side, retold_units, teams_in_force

FROM_HEAD = ("agents", "skills")
"""Top-level folders that a gate takes from a pull request's head."""
PLAN = "interlock/plan"
GATE = "interlock/gate"
"""Contexts of the two statuses of a head."""


def look(context: Context, declared: Declared) -> bool:
    """Look at the pull requests, if there is anything new; True when something was done.

    What cannot be read or written of one is a problem of this tick; the others are looked at.
    """
    forge = context.forge
    if forge is None:
        return False
    try:
        found = forge.pulls()
    except ForgeError as error:
        context.problems.append(f"pull requests were not looked at: {error}")
        return False
    with context.database.snapshot() as tx:
        mark = (found.mark, declared.commit, audit.last_seq(tx))
        waits = bool(approvals.waiting(tx))
    if mark == context.pulls_mark:
        context.problems += context.pulls_problem
        return False
    problems = [
        f"pull request #{number} cannot be read: {render(findings)}"
        for number, findings in found.broken.items()
    ]
    context.pulls_unread = set(found.broken)
    done = again = False
    for pull in found.pulls:
        # What was merged is listened to while something waits: that may be approved there too.
        if pull.target != context.branch or not (pull.open or waits):
            continue
        try:
            done |= _look_at(context, declared, forge, pull)
        except (ForgeError, SourceError, LookupError, ValueError, OSError) as error:
            problems.append(f"pull request #{pull.number}: {error}")
            context.pulls_unread.add(pull.number)
            again |= isinstance(error, ForgeUnavailable)
    for number in [n for n in context.pulls if n not in {p.number for p in found.open}]:
        del context.pulls[number]
    context.pulls_problem = problems
    context.problems += problems
    # What it was when the look began: while we wrote, others may have said something, and then
    # there is more to look at. What could not be written is tried again.
    context.pulls_mark = ("", "", 0) if again else mark
    return done


def _look_at(context: Context, declared: Declared, forge: Forge, pull: Pull) -> bool:
    if not pull.open:
        return listen(context, forge, pull, None)
    if pull.head is None:
        context.pulls.pop(pull.number, None)
        return False
    looked = _compiled(context, declared, pull)
    context.pulls[pull.number] = looked
    done = listen(context, forge, pull, looked)
    if looked.gated is not None:
        done |= judging.open_for_pull(context, declared, pull, looked, may_gate(context, pull))
    _tell(context, declared, forge, pull, looked)
    return done


def _compiled(context: Context, declared: Declared, pull: Pull) -> Looked:
    """The merge result and its plan, made again only when one of its sides moved."""
    assert pull.head is not None
    base = CommitId(ObjectId(declared.commit))
    known = context.pulls.get(pull.number)
    fresh = known is None or (known.head, known.base) != (pull.head, declared.commit)
    if fresh:
        merged = merge_result(context.config, base, pull.head)
        if merged.tree is None:
            return Looked(
                head=pull.head, base=declared.commit, conflicts=merged.conflicts or ("everything",)
            )
        tree = context.config.tree_at(merged.tree)
        wanted = compile_tree(context, tree, pull.head)
        gated = wanted
        if wanted.found is not None and _beyond(context.config.tree(base), tree):
            grafted = GraftedTree(context.config.tree(base), tree, FROM_HEAD)
            gated = compile_tree(context, grafted, pull.head)
        known = Looked(
            head=pull.head,
            base=declared.commit,
            wanted=wanted.found,
            changed=wanted.changed,
            gated=gated.found,
            findings=wanted.findings,
            collisions=_collisions(declared, wanted.found),
        )
    assert known is not None
    if known.wanted is None:
        return known
    plan = plan_of(context, known.wanted, known.changed)
    return _replayed(
        context,
        declared,
        replace(
            known,
            plan=replace(plan, collisions=tidy((*plan.collisions, *known.collisions))),
            held=_held(context, known.gated, known.changed),
        ),
    )


def _replayed(context: Context, declared: Declared, looked: Looked) -> Looked:
    """The same, with what recent calls say of it: asked once a day while nothing moves."""
    assert looked.plan is not None
    assert looked.wanted is not None
    now = context.clock.now()
    with context.database.snapshot() as tx:
        policy = access.current_digest(tx)
        key = Replayed(policy, tuple(sorted(declared.waiting)), now // DAY_MS)
        if looked.replayed == key:
            return looked
        before = policies_of(declared.fleet)
        after = policies_of(looked.wanted.fleet, broken=looked.plan.broken, live=before)
        found = None
        if enforced_differs(before, after, looked.plan):
            found = recorded.replay(tx, before, after, now=now)
    return replace(looked, backtest=found, replayed=key)


def _collisions(declared: Declared, wanted: Declared | None) -> tuple[Finding, ...]:
    """What collides in the merge result and does not today: claims, cycles, pile-ups."""
    if wanted is None:
        return ()
    today = set(collisions_of(declared.fleet))
    return tuple(f for f in collisions_of(wanted.fleet) if f not in today)


def _held(
    context: Context, gated: Declared | None, changed: frozenset[AgentName] | None
) -> frozenset[AgentName]:
    """Agents that are not gated: the base itself says something for them that nobody has approved,
    another image for instance. Evals run on the host too."""
    with context.database.snapshot() as tx:
        scopes = {one.subject.scope for one in approvals.waiting(tx)}
    units = {scope for scope in scopes if not scope.startswith(approvals.AGENT)}
    if gated is None or not units:
        return frozenset()
    depends = plan_of(context, gated, changed).depends
    return frozenset(agent for agent, needs in depends.items() if not needs.isdisjoint(units))


def _beyond(base: GitTree, merged: GitTree) -> bool:
    """Whether more than agents and skills differ."""
    one, two = ({e.name: e for e in t.entries() if e.name not in FROM_HEAD} for t in (base, merged))
    return one != two


def plan_of(context: Context, wanted: Declared, changed: frozenset[AgentName] | None) -> Plan:
    """What a commit would change of what is live."""
    waiting = set(context.declared.waiting) if context.declared is not None else set()
    names = {*wanted.releases, *wanted.broken} if changed is None else {*changed, *waiting}
    with context.database.snapshot() as tx:
        live, rows = live_side(context, tx, names, retold_units(context, tx))
        return plan_between(tx, live, desired_side(wanted, names), rows)


def _tell(context: Context, declared: Declared, forge: Forge, pull: Pull, looked: Looked) -> None:
    """The one comment and the two statuses, brought up to date; nothing when they are."""
    assert pull.head is not None
    body, state, words = _plan_told(context, looked, declared)
    forge.perform(UpsertComment(pull.number, "plan", body))
    if looked.plan is not None and looked.plan.subjects:
        with context.database.transaction() as tx:
            show(tx, pull, looked.plan.subjects, context.clock.now())
    forge.perform(SetStatus(pull.number, pull.head, PLAN, state, words))
    gate = judging.verdict_of(context, pull, looked)
    if gate is not None:
        forge.perform(SetStatus(pull.number, pull.head, GATE, *gate))


def _plan_told(
    context: Context, looked: Looked, declared: Declared
) -> tuple[str, StatusState, str]:
    if looked.conflicts:
        paths = "\n".join(f"- {code(path)}" for path in looked.conflicts[:50])
        text = "### Interlock plan\n\n**Cannot be merged**: the branch has conflicts in\n\n"
        return text + paths + "\n", StatusState.FAILURE, "conflicts with the target branch"
    if looked.plan is None:
        errors = [f for f in looked.findings if f.severity is Severity.ERROR]
        text = (
            "### Interlock plan\n\n**Nothing of this can be acted upon**: files that all agents "
            "share are in error.\n\n```text\n" + render(errors[:50]).replace("`", "'") + "\n```\n"
        )
        return text, StatusState.FAILURE, f"{len(errors)} errors in files that all agents share"
    plan = looked.plan
    with context.database.snapshot() as tx:
        usable = approvals.usable(tx, context.clock.now())
        teams = teams_in_force(tx)
    now = context.clock.now()
    missing = [s for s in plan.subjects if decide.lacking(s, usable, teams=teams, now=now)]
    gate = judging.told(context, looked)
    if plan.subjects:
        gate = _approved_told(plan, missing, usable) + gate
    body = plan_comment(
        plan,
        gate=gate,
        live=f"what is live at {declared.commit[:12]}",
        backtest=looked.backtest,
    )
    body = body.partition("\n")[2].lstrip("\n")  # the forge writes the marker itself
    if plan.broken or plan.failing:
        return body, StatusState.FAILURE, _short(headline(plan))
    if missing:
        return body, StatusState.PENDING, _short(headline(plan))
    return body, StatusState.SUCCESS, _short(headline(plan))


def _approved_told(plan: Plan, missing: list[Subject], usable: list[decide.Approval]) -> str:
    """Who has approved what so far."""
    rows = []
    for subject in plan.subjects:
        said = [a.actor for a in usable if a.subject == subject.digest]
        if said:
            state = "approved" if subject not in missing else "approved in part"
            rows.append(f"- `{subject.scope}`: {state} by {', '.join(dict.fromkeys(said))}")
    return "**Approvals**\n\n" + "\n".join(rows) + "\n\n" if rows else ""


def _short(text: str) -> str:
    plain = text.replace("`", "")
    return plain if len(plain) <= 140 else plain[:139] + "…"
