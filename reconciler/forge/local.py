"""The built-in forge: pull requests on a branch of the config repo itself.

Everything is a small JSON file on `interlock/pulls`, written by a commit and a compare-and-swap
push, so it works over whatever git works over, needs no server, and two people who write at once
get two numbers. What it cannot do is prove who somebody is: it believes the login that a writer
gives. Whoever can push to the repository can speak as anyone. It is for one machine, for trials,
and for places where access to the repository is the boundary of trust anyway.

Reading looks at the mirror as of its last fetch and asks no network; `refresh` fetches. Writing
always fetches first. An instance belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from gateway.values import Clock
from reconciler.forge import documents, landing
from reconciler.forge.board import Board, checked, numbers_in, read_or_findings
from reconciler.forge.documents import (
    BRANCH,
    CommentDocument,
    PullDocument,
    StatusEntry,
    folder_of,
    made,
)
from reconciler.forge.model import (
    BODY_LIMIT,
    DESCRIPTION_LIMIT,
    Action,
    AddComment,
    Close,
    Comment,
    ForgeError,
    ForgeRefused,
    ForgeUnavailable,
    Login,
    Merge,
    OpenPull,
    Performed,
    Permission,
    Pull,
    PullNumber,
    Pulls,
    PullState,
    SetStatus,
    Status,
    UpsertComment,
    marked,
    marker_line,
)
from reconciler.source.errors import RemoteUnavailable, SourceError
from reconciler.source.integrate import backoff_delays, integrate_and_push
from reconciler.source.mirror import Mirror
from reconciler.source.objects import CommitId
from reconciler.source.tree import Tree

ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class _Draft:
    """What an action would write onto the branch, and what it then has done."""

    done: Performed
    changes: Mapping[str, bytes | None] = field(default_factory=dict)


class LocalForge:
    """`model.Forge` on a mirror. `login` is who we are; `bot` marks what we say as a program's.

    `sleep` takes seconds; `draw` gives uniform numbers in [0, 1), for retries when several write.
    """

    def __init__(
        self,
        mirror: Mirror,
        *,
        clock: Clock,
        login: Login,
        bot: bool,
        sleep: Callable[[float], None],
        draw: Callable[[], float],
    ) -> None:
        made(CommentDocument, id=1, author=login, body="", at=0)  # a login that can be written
        self._mirror = mirror
        self._clock = clock
        self._login = login
        self._bot = bot
        self._sleep = sleep
        self._draw = draw
        self._board = Board(mirror)

    @property
    def login(self) -> Login:
        """Who we are."""
        return self._login

    # --- reading

    def refresh(self) -> None:
        """Fetch. ForgeUnavailable."""
        try:
            self._mirror.fetch()
        except RemoteUnavailable as error:
            raise ForgeUnavailable(str(error), retryable=error.retryable) from error

    def pulls(self) -> Pulls:
        """Every pull as of the last fetch; files that did not change are not read again."""
        return self._board.pulls()

    def pull(self, number: PullNumber) -> Pull:
        """One pull. ForgeRefused when there is none, MalformedPull."""
        return self._board.pull(number)

    def comments(self, number: PullNumber) -> tuple[Comment, ...]:
        """What was said to it, oldest first. As `pull`."""
        return self._board.of_pull(number, documents.read_comments)

    def statuses(self, number: PullNumber, head: CommitId) -> tuple[Status, ...]:
        """What checks say of that commit. As `pull`."""
        return self._board.of_pull(number, documents.read_statuses).values(head)

    def permission(self, login: Login) -> Permission:
        """Everybody whose word is on the branch could push it there."""
        return Permission.WRITE

    # --- writing

    def perform(self, action: Action) -> Performed:
        """Carry out one action. ForgeRefused, MalformedPull, ForgeUnavailable."""
        match action:
            case OpenPull():
                return self._write(lambda tree: self._open(tree, action))
            case AddComment():
                return self._write(lambda tree: self._comment(tree, action))
            case UpsertComment():
                return self._write_if_news(lambda tree: self._upsert(tree, action))
            case SetStatus():
                return self._write_if_news(lambda tree: self._status(tree, action))
            case Merge():
                return self._merge(action)
            case Close():
                return self._write(lambda tree: self._close(tree, action))

    def _write_if_news(self, draft_on: Callable[[Tree], _Draft]) -> Performed:
        """What a program says at every look costs no network as long as it says the same."""
        with suppress(ForgeError):  # perhaps of a pull that was opened since the last fetch
            draft = draft_on(self._board.now())
            if not draft.changes:
                return draft.done
        return self._write(draft_on)

    def _write(self, draft_on: Callable[[Tree], _Draft]) -> Performed:
        """Fetch, draft, push; again from the new head when somebody was faster."""
        drafts: list[_Draft] = []

        def build(head: CommitId | None) -> CommitId:
            draft = draft_on(self._board.tree(head))
            drafts.append(draft)
            if head is not None and not draft.changes:
                return head
            return self._mirror.write_commit(
                head,
                draft.changes,
                message=draft.done.text,
                author=landing.identity_of(self._login),
                committer=landing.COMMITTER,
                when_ms=self._clock.now(),
                signer=None,
            )

        result, _ = integrate_and_push(
            self._mirror,
            BRANCH,
            build,
            delays=backoff_delays(self._draw, first=0.2),
            sleep=self._sleep,
            attempts=ATTEMPTS,
        )
        if not result.pushed:
            raise ForgeUnavailable(
                f"nothing was written to {BRANCH} of {self._mirror.url}: {result.reason}",
                retryable=result.retryable,
            )
        return drafts[-1].done

    def _open(self, tree: Tree, action: OpenPull) -> _Draft:
        taken = numbers_in(tree)
        number = PullNumber(documents.next_id(taken))
        document = made(
            PullDocument,
            number=number,
            title=action.title.strip(),
            body=_clean(action.body),
            source=action.source,
            target=action.target,
            opener=self._login,
            opened_at=self._clock.now(),
        )
        heads = {name: self._mirror.resolve(name) for name in (action.source, action.target)}
        for name, head in heads.items():
            if head is None:
                raise ForgeRefused(
                    f"there is no branch {name} in {self._mirror.url}; push it first"
                )
        source, target = heads[action.source], heads[action.target]
        assert source is not None
        assert target is not None
        if self._board.is_contained(source, target):
            raise ForgeRefused(f"{action.target} has all of {action.source}: nothing to merge")
        for other in taken:
            known = read_or_findings(tree, other)
            if not isinstance(known, PullDocument) or not self._board.value(known).open:
                continue
            if (known.source, known.target) == (action.source, action.target):
                text = f"#{other} is open already from {action.source} to {action.target}"
                return _Draft(Performed(False, other, text))
        text = f"#{number} opened: {document.title}"
        changes = {f"{folder_of(number)}/pull.json": document.content()}
        return _Draft(Performed(True, number, text), changes)

    def _comment(self, tree: Tree, action: AddComment) -> _Draft:
        if not action.body.strip():
            raise ForgeRefused("an empty comment says nothing")
        if len(action.body) > BODY_LIMIT:
            raise ForgeRefused(f"a comment has at most {BODY_LIMIT:,} characters")
        head = self._current(tree, action.pull)
        if action.head is not None and head != action.head:
            raise ForgeRefused(_moved(action.pull, action.head, head))
        return self._said(tree, action.pull, _clean(action.body), head)

    def _upsert(self, tree: Tree, action: UpsertComment) -> _Draft:
        body = marked(action.marker, _clean(action.body))
        head = self._current(tree, action.pull)
        for comment in checked(action.pull, lambda: documents.read_comments(tree, action.pull)):
            ours = comment.bot == self._bot and comment.author.casefold() == self._login.casefold()
            if not ours or not comment.body.startswith(marker_line(action.marker) + "\n"):
                continue
            text = f"#{action.pull}: comment {comment.id} ({action.marker})"
            if comment.body == body:
                done = Performed(False, action.pull, f"{text} says so already", comment.id)
                return _Draft(done)
            document = made(
                CommentDocument,
                id=comment.id,
                author=comment.author,
                body=body,
                at=comment.at,
                head=head,
                bot=comment.bot,
                edited_at=self._clock.now(),
            )
            done = Performed(True, action.pull, f"{text} brought up to date", comment.id)
            return _Draft(done, {_comment_path(action.pull, comment.id): document.content()})
        return self._said(tree, action.pull, body, head)

    def _said(self, tree: Tree, number: PullNumber, body: str, head: CommitId | None) -> _Draft:
        comments = checked(number, lambda: documents.read_comments(tree, number))
        document = made(
            CommentDocument,
            id=documents.next_id(comment.id for comment in comments),
            author=self._login,
            body=body,
            at=self._clock.now(),
            head=head,
            bot=self._bot,
        )
        text = f"#{number}: comment {document.id} by {self._login}"
        changes = {_comment_path(number, document.id): document.content()}
        return _Draft(Performed(True, number, text, document.id), changes)

    def _status(self, tree: Tree, action: SetStatus) -> _Draft:
        self._board.document(tree, action.pull)
        known = checked(action.pull, lambda: documents.read_statuses(tree, action.pull))
        line = _visible(" ".join(action.description.split()))
        description = (
            line if len(line) <= DESCRIPTION_LIMIT else line[: DESCRIPTION_LIMIT - 1] + "…"
        )
        text = f"#{action.pull}: {action.context} {action.state} on {action.head[:12]}"
        for status in known.values(action.head):
            if (status.context, status.state, status.description) == (
                action.context,
                action.state,
                description,
            ):
                return _Draft(Performed(False, action.pull, f"{text} already"))
        entry = StatusEntry(state=action.state, description=description, at=self._clock.now())
        document = known.with_entry(action.head, action.context, entry)
        changes = {f"{folder_of(action.pull)}/statuses.json": document.content()}
        return _Draft(Performed(True, action.pull, text), changes)

    def _close(self, tree: Tree, action: Close) -> _Draft:
        document = self._board.document(tree, action.pull)
        if document.state is PullState.CLOSED:
            return _Draft(Performed(False, action.pull, f"#{action.pull} is closed already"))
        if document.state is PullState.MERGED:
            raise ForgeRefused(f"#{action.pull} is merged; it cannot be closed")
        return self._end(document, PullState.CLOSED, self._mirror.resolve(document.source), None)

    def _merge(self, action: Merge) -> Performed:
        for _ in range(2):
            self.refresh()
            tree = self._board.now()
            document = self._board.document(tree, action.pull)
            pull = self._board.value(document)
            if pull.state is PullState.CLOSED:
                raise ForgeRefused(f"#{action.pull} is closed; open a new one")
            if pull.head != action.head:
                raise ForgeRefused(_moved(action.pull, action.head, pull.head))
            if not pull.open:
                if document.state is not PullState.OPEN:
                    text = f"#{action.pull} is merged already"
                    return Performed(False, action.pull, text, commit=pull.merged)
                commit = self._landed(pull)
            else:
                try:
                    commit = landing.land(
                        self._mirror,
                        pull,
                        squash=action.squash,
                        login=self._login,
                        when_ms=self._clock.now(),
                    )
                except landing.TargetMoved:
                    continue
                except SourceError as error:
                    raise ForgeUnavailable(str(error), retryable=error.retryable) from error
            return self._write(partial(self._note_merge, action, commit))
        raise ForgeRefused(
            f"the target of #{action.pull} keeps moving; nothing was merged, try again"
        )

    def _landed(self, pull: Pull) -> CommitId | None:
        target = self._mirror.resolve(pull.target)
        return landing.landed(self._mirror, pull, target) if target is not None else None

    def _note_merge(self, action: Merge, commit: CommitId | None, tree: Tree) -> _Draft:
        document = self._board.document(tree, action.pull)
        if document.state is PullState.MERGED:
            text = f"#{action.pull} is merged"
            return _Draft(Performed(True, action.pull, text, commit=commit))
        return self._end(document, PullState.MERGED, action.head, commit)

    def _end(
        self,
        document: PullDocument,
        state: PullState,
        head: CommitId | None,
        merged: CommitId | None,
    ) -> _Draft:
        ended = made(
            PullDocument,
            **{
                **document.model_dump(),
                "state": state,
                "head": head,
                "merged": merged,
                "closer": self._login,
                "closed_at": self._clock.now(),
            },
        )
        number = PullNumber(document.number)
        where = f" into {document.target}" if state is PullState.MERGED else ""
        done = Performed(True, number, f"#{number} {state}{where}: {document.title}", commit=merged)
        return _Draft(done, {f"{folder_of(number)}/pull.json": ended.content()})

    def _current(self, tree: Tree, number: PullNumber) -> CommitId | None:
        """What somebody who speaks now speaks about."""
        return self._board.value(self._board.document(tree, number)).head


def _comment_path(number: PullNumber, comment: int) -> str:
    return f"{folder_of(number)}/comments/{comment}.json"


def _moved(number: PullNumber, asked: CommitId, now: CommitId | None) -> str:
    where = f"at {now[:12]}" if now is not None else "gone"
    return (
        f"the head of #{number} is {where}, not {asked[:12]}: it moved; look at what is there now "
        f"(`interlock pr show {number}`)"
    )


def _clean(body: str) -> str:
    return "".join(
        c if c in "\t\n\r" or not (c < " " or "\x7f" <= c <= "\x9f") else "\ufffd" for c in body
    )


def _visible(line: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in line)
