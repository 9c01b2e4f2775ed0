"""Pull requests: a plan as their one comment, a gate for their head, and what people answer.

Looked at when something about them, the watched branch or what is live has changed. The plan is of
the merge result against what is live. The gate takes agents and skills from the head and all else
(providers, images, limits, commands) from the base: a head never chooses where a secret goes or
what runs on the host. A comment's commands are carried out once, in the name of who wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gateway.database import Transaction
from gateway.values import AgentName, Millis
from reconciler.approvals import decide
from reconciler.approvals import store as approvals
from reconciler.findings import Severity, render
from reconciler.forge import commands
from reconciler.forge.model import (
    Comment,
    Forge,
    ForgeError,
    Pull,
    SetStatus,
    StatusState,
    UpsertComment,
)
from reconciler.forge.people import authors_of, is_author
from reconciler.plan import Plan, Subject, diff
from reconciler.plan.render import comment as plan_comment
from reconciler.plan.render.summary import headline
from reconciler.record import audit
from reconciler.source.errors import SourceError
from reconciler.source.grafted import GraftedTree
from reconciler.source.merging import commits_between, merge_result
from reconciler.source.mirror import GitTree
from reconciler.source.objects import CommitId, ObjectId
from reconciler.source.tree import changed_paths
from reconciler.tick import judging
from reconciler.tick.compiling import compile_tree
from reconciler.tick.context import Context, Declared, Looked
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
    if mark == context.pulls_mark:
        return False
    for number, findings in found.broken.items():
        context.problems.append(f"pull request #{number} cannot be read: {render(findings)}")
    done = False
    for pull in found.pulls:
        if pull.target != context.branch:
            continue
        try:
            done |= _look_at(context, declared, forge, pull)
        except (ForgeError, SourceError, LookupError, ValueError, OSError) as error:
            context.problems.append(f"pull request #{pull.number}: {error}")
    for number in [n for n in context.pulls if n not in {p.number for p in found.open}]:
        del context.pulls[number]
    with context.database.snapshot() as tx:
        context.pulls_mark = (forge.pulls().mark, declared.commit, audit.last_seq(tx))
    return done


def _look_at(context: Context, declared: Declared, forge: Forge, pull: Pull) -> bool:
    if not pull.open:
        return _listen(context, forge, pull, None)
    if pull.head is None:
        context.pulls.pop(pull.number, None)
        return False
    looked = _compiled(context, declared, pull)
    context.pulls[pull.number] = looked
    done = _listen(context, forge, pull, looked)
    if looked.gated is not None:
        done |= judging.open_for_pull(context, declared, pull, looked, _may_gate(context, pull))
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
        )
    assert known is not None
    if known.wanted is None:
        return known
    return replace(known, plan=plan_of(context, known.wanted, known.changed))


def _beyond(base: GitTree, merged: GitTree) -> bool:
    """Whether more than agents and skills differ."""
    return any(p.partition("/")[0] not in FROM_HEAD for p in changed_paths(base, merged))


def plan_of(context: Context, wanted: Declared, changed: frozenset[AgentName] | None) -> Plan:
    """What a commit would change of what is live."""
    waiting = set(context.declared.waiting) if context.declared is not None else set()
    names = {*wanted.releases, *wanted.broken} if changed is None else {*changed, *waiting}
    with context.database.snapshot() as tx:
        live, _ = live_side(context, tx, names, retold_units(context, tx))
    return diff(live, desired_side(wanted, names))


def _tell(context: Context, declared: Declared, forge: Forge, pull: Pull, looked: Looked) -> None:
    """The one comment and the two statuses, brought up to date; nothing when they are."""
    assert pull.head is not None
    body, state, words = _plan_told(context, looked, declared)
    forge.perform(UpsertComment(pull.number, "plan", body))
    forge.perform(SetStatus(pull.number, pull.head, PLAN, state, words))
    gate = judging.verdict_of(context, pull, looked)
    if gate is not None:
        forge.perform(SetStatus(pull.number, pull.head, GATE, *gate))


def _plan_told(
    context: Context, looked: Looked, declared: Declared
) -> tuple[str, StatusState, str]:
    if looked.conflicts:
        paths = "\n".join(f"- `{path}`" for path in looked.conflicts[:50])
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
    body = plan_comment(plan, gate=gate, live=f"what is live at {declared.commit[:12]}")
    body = body.partition("\n")[2].lstrip("\n")  # the forge writes the marker itself
    failing = [f for f in plan.collisions if f.severity is Severity.ERROR]
    if plan.broken or failing:
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


# --- what people say


@dataclass
class _Answer:
    """What a command came to, for its author."""

    lines: list[str] = field(default_factory=list)


def _listen(context: Context, forge: Forge, pull: Pull, looked: Looked | None) -> bool:
    """Carry out commands of comments that nobody has looked at yet; each comment once."""
    done = False
    for said in forge.comments(pull.number):
        asked = commands.commands_in(said, ourselves=(forge.login,))
        if not asked:
            continue
        answer = _carry_out(context, pull, looked, said, asked)
        if answer is None:
            continue
        done = True
        if answer.lines:
            forge.perform(
                UpsertComment(pull.number, f"answer-{said.id}", "\n".join(answer.lines) + "\n")
            )
    return done


def _carry_out(
    context: Context,
    pull: Pull,
    looked: Looked | None,
    said: Comment,
    asked: tuple[commands.Command, ...],
) -> _Answer | None:
    """None when the comment was looked at before. Decision, audit and mark are one transaction."""
    answer = _Answer()
    now = context.clock.now()
    verbs = " ".join(type(command).__name__.lower() for command in asked)
    authors = _authors(context, pull)
    with context.database.transaction() as tx:
        new = tx.execute(
            "INSERT INTO pull_comments (pull, comment, head, author, asked, at) VALUES"
            " (:pull, :comment, :head, :author, :asked, :now) ON CONFLICT DO NOTHING",
            pull=pull.number,
            comment=said.id,
            head=said.head or "",
            author=said.author,
            asked=verbs,
            now=now,
        )
        if not new:
            return None
        for command in asked:
            match command:
                case commands.Approve(scopes=scopes):
                    _approve(tx, context, pull, looked, said, scopes, authors, answer, now)
                case commands.Reject(reason=reason):
                    void = approvals.withdraw(tx, pull.number)
                    answer.lines.append(
                        f"Rejected by {said.author}; {void} approvals given here are void."
                    )
                    audit.append(
                        tx,
                        now=now,
                        actor=said.author,
                        action="pull.reject",
                        subject=f"#{pull.number}",
                        reason=reason,
                    )
                case commands.Help():
                    answer.lines.append(commands.HELP)
                case commands.Mistake(answer=words):
                    answer.lines.append(words)
                case commands.Gate():
                    if not _is_member(tx, said.author):
                        answer.lines.append(
                            f"{said.author} is in no team of teams.yaml, so the gate is not run."
                        )
                case commands.Plan():
                    context.pulls.pop(pull.number, None)
    return answer


def _approve(
    tx: Transaction,
    context: Context,
    pull: Pull,
    looked: Looked | None,
    said: Comment,
    scopes: tuple[str, ...],
    authors: tuple[str, ...],
    answer: _Answer,
    now: Millis,
) -> None:
    if pull.open and said.head != pull.head:
        answer.lines.append(
            "Not approved: the branch has moved since this comment was written. Look at the plan "
            "again, and approve that."
        )
        return
    subjects = _subjects(tx, context, pull, looked)
    wanted = [s for s in subjects if not scopes or s.scope in scopes]
    for scope in scopes:
        if all(s.scope != scope for s in subjects):
            answer.lines.append(f"- `{scope}` needs no approval here")
    if not subjects and not scopes:
        answer.lines.append("Nothing here needs an approval.")
    teams = teams_in_force(tx)
    for subject in wanted:
        objection = decide.objection(
            subject, said.author, teams=teams, author=is_author(said.author, authors)
        )
        if objection is not None:
            answer.lines.append(f"- `{subject.scope}`: not approved: {objection}")
            continue
        approvals.approve(
            tx,
            subject,
            actor=said.author,
            reason=f"comment {said.id} on #{pull.number}",
            pull=pull.number,
            head=said.head or "",
            now=now,
        )
        audit.append(
            tx,
            now=now,
            actor=said.author,
            action="approve",
            agent=subject.scope.partition("/")[2] if subject.scope.startswith("agent/") else None,
            subject=approvals.waiting_id(subject),
            reason=f"#{pull.number} {subject.scope}: "
            + "; ".join(one.text for one in subject.loosenings),
        )
        answer.lines.append(f"- `{subject.scope}`: approved by {said.author}")


def _subjects(
    tx: Transaction, context: Context, pull: Pull, looked: Looked | None
) -> tuple[Subject, ...]:
    """What this pull request would loosen; of a merged one, what of it still waits."""
    if looked is not None and looked.plan is not None:
        return looked.plan.subjects
    if pull.merged is None:
        return ()
    return tuple(
        one.subject
        for one in approvals.waiting(tx)
        if context.config.is_ancestor(pull.merged, CommitId(ObjectId(one.commit)))
    )


def _authors(context: Context, pull: Pull) -> tuple[str, ...]:
    """Everybody who made this change."""
    if pull.head is None:
        return (str(pull.opener),)
    target = context.config.resolve(context.branch)
    if pull.merged is not None:
        parents = context.config.commit_info(pull.merged).parents
        target = parents[0] if parents else None
    commits = (
        commits_between(context.config, target, pull.head)
        if target is not None and context.config.resolve(pull.head) is not None
        else ()
    )
    return authors_of(pull.opener, commits)


def _may_gate(context: Context, pull: Pull) -> bool:
    """Evals cost money: they are run for people of a team, or when one of them asks."""
    with context.database.snapshot() as tx:
        if _is_member(tx, str(pull.opener)):
            return True
        asked = tx.read(
            "SELECT author FROM pull_comments WHERE pull = :pull AND head = :head"
            " AND (' ' || asked || ' ') LIKE '% gate %'",
            pull=pull.number,
            head=pull.head,
        )
        return any(_is_member(tx, row["author"]) for row in asked)


def _is_member(tx: Transaction, login: str) -> bool:
    folded = login.casefold()
    return any(
        folded == member.casefold()
        for team in teams_in_force(tx).values()
        for member in team.members
    )
