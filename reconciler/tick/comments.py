"""What people say on pull requests: each comment's commands, once, in the name of who wrote it.

An approval is of what its pull request brings, and of nothing that came to the branch in another
way or later; whoever wrote a part of what is approved is an author of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.database import Transaction
from gateway.values import Millis
from reconciler.approvals import store as approvals
from reconciler.approvals.store import Waiting
from reconciler.forge import commands
from reconciler.forge.model import Comment, Forge, Pull, UpsertComment
from reconciler.forge.people import authors_of, is_author
from reconciler.plan import Subject
from reconciler.record import audit
from reconciler.source.merging import commits_between
from reconciler.source.objects import CommitId, ObjectId
from reconciler.tick import approving
from reconciler.tick.context import Context, Looked
from reconciler.tick.force import teams_in_force


@dataclass
class _Answer:
    """What a command came to, for its author."""

    lines: list[str] = field(default_factory=list)


def listen(context: Context, forge: Forge, pull: Pull, looked: Looked | None) -> bool:
    """Carry out commands of comments that nobody has looked at yet; each comment once.

    `looked` is None for a pull request that is not open any more. True when there was one.
    """
    done = False
    with context.database.snapshot() as tx:
        rows = tx.read("SELECT comment FROM pull_comments WHERE pull = :pull", pull=pull.number)
    known = {row["comment"] for row in rows}
    for said in forge.comments(pull.number):
        if said.id in known:
            continue
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
                case commands.Reject() if not (
                    _is_member(tx, said.author) or is_author(said.author, authors)
                ):
                    answer.lines.append(
                        f"{said.author} is in no team of teams.yaml and no author of this change, "
                        "so nothing is rejected."
                    )
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
                    pass  # it is made at every look, and this is one
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
    waits = {one.subject.scope: one for one in approvals.waiting(tx)}
    for subject in wanted:
        waiting = waits.get(subject.scope)
        elsewhere = _elsewhere(
            context,
            pull,
            said,
            subject,
            waiting,
            authors,
            named=bool(scopes),
            was_shown=said.head == pull.head and shown(tx, pull, said, subject),
        )
        if elsewhere is not None:
            answer.lines.append(f"- `{subject.scope}`: not approved: {elsewhere}")
            continue
        # What waits on the branch is part of what is approved here, and so are its authors.
        made = (*authors, *(waiting.authors if waiting is not None else ()))
        objection = approving.approve(
            tx,
            subject,
            actor=said.author,
            reason=f"comment {said.id} on #{pull.number}",
            authors=made,
            head=said.head or "",
            pull=pull.number,
            now=now,
        )
        if objection is not None:
            answer.lines.append(f"- `{subject.scope}`: not approved: {objection}")
            continue
        answer.lines.append(f"- `{subject.scope}`: approved by {said.author}")


def _elsewhere(
    context: Context,
    pull: Pull,
    said: Comment,
    subject: Subject,
    waiting: Waiting | None,
    authors: tuple[str, ...],
    *,
    named: bool,
    was_shown: bool,
) -> str | None:
    """Why a comment here does not speak of what waits on the branch; None when it does.

    "Approve" without a scope is about what this pull request brings, and about nothing that came
    to the branch in another way, or later.
    """
    if waiting is None or waiting.subject.digest != subject.digest:
        return None
    if not pull.open and said.at <= waiting.since and not was_shown:
        return "it did not wait yet when this was written; please say it again"
    if named:
        return None
    ask = f"to approve it, say so: `/interlock approve {subject.scope}`"
    if pull.open:
        return f"it waits on the branch already, without this pull request; {ask}"
    known = {*authors}
    if pull.merged is not None:
        known |= {*authors_of(pull.opener, (context.config.commit_info(pull.merged),))}
    others = sorted(name for name in waiting.authors if not is_author(name, known))
    return f"{', '.join(others)} changed the branch as well; {ask}" if others else None


def show(tx: Transaction, pull: Pull, subjects: Sequence[Subject], now: Millis) -> None:
    """Note what the plan comment of a head tells people of: that is what they approve."""
    for subject in subjects:
        tx.execute(
            "INSERT INTO shown (pull, head, subject, at) VALUES (:pull, :head, :subject, :now)"
            " ON CONFLICT DO NOTHING",
            pull=pull.number,
            head=pull.head,
            subject=subject.digest,
            now=now,
        )


def shown(tx: Transaction, pull: Pull, said: Comment, subject: Subject) -> bool:
    """Whether the plan of the head that a comment is about had told of exactly this before."""
    row = tx.one(
        "SELECT at FROM shown WHERE pull = :pull AND head = :head AND subject = :subject",
        pull=pull.number,
        head=said.head,
        subject=subject.digest,
    )
    return row is not None and int(row["at"]) <= said.at


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


def may_gate(context: Context, pull: Pull) -> bool:
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
