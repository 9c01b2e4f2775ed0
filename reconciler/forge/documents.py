"""The files on the branch `interlock/pulls`: read with distrust, written one way.

The format is docs/formats/pulls.md.

Whoever can push can write anything there, so every file is validated before a word of it is used:
sizes first, then the JSON, then each field. What does not fit is a finding of that pull. Nothing is
repaired and nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from gateway.values import Millis, canonical_json
from reconciler.findings import Finding, Severity, quoted
from reconciler.forge.model import (
    BODY_LIMIT,
    DESCRIPTION_LIMIT,
    TITLE_LIMIT,
    Comment,
    ForgeRefused,
    Login,
    Pull,
    PullNumber,
    PullState,
    Status,
    StatusState,
)
from reconciler.source.objects import CommitId, ObjectId, is_object_id
from reconciler.source.paths import MissingPath, SourceTooLarge, UnsafePath
from reconciler.source.tree import Entry, Kind, Tree

FORMAT: Literal["interlock.pulls/1"] = "interlock.pulls/1"
BRANCH = "interlock/pulls"
FOLDER = "pulls"
MOST_BYTES = 512 * 1024
"""Of one file: a body of the longest kind fits, however it is escaped."""
MOST_COMMENTS = 10_000
MOST_HEADS = 50
"""Heads of one pull whose statuses are kept; older ones make room."""

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_BAD_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[./-]|[/.]$|^@$")


def check_branch(name: str) -> str:
    """The name, if it can be a branch that pulls are about. ValueError says why not."""
    if not name or len(name) > 244 or _BAD_BRANCH.search(name) or not name.isprintable():
        raise ValueError("not the name of a branch (see git check-ref-format)")
    if name.startswith("refs/"):
        raise ValueError("a branch is named without refs/heads/")
    if name == BRANCH:
        raise ValueError(f"{BRANCH} holds the pull requests themselves")
    return name


def _one_line(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be one line of printable characters, without blanks around it")
    return text


def _prose(text: str) -> str:
    if any((c < " " and c not in "\t\n\r") or "\x7f" <= c <= "\x9f" for c in text):
        raise ValueError("must have no control characters but tabs and line ends")
    return text


def _commit(text: str) -> CommitId:
    if not is_object_id(text):
        raise ValueError("must be a full commit id (40 hex digits)")
    return CommitId(ObjectId(text))


LoginText = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?(?:\[bot\])?$", max_length=70
    ),
]
BranchText = Annotated[str, AfterValidator(check_branch)]
CommitText = Annotated[str, AfterValidator(_commit)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=TITLE_LIMIT)]
Title = Annotated[Line, AfterValidator(_one_line)]
Body = Annotated[str, StringConstraints(max_length=BODY_LIMIT), AfterValidator(_prose)]
Moment = Annotated[int, Field(ge=0, le=2**53)]
Context = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._/-]{0,99}$", max_length=100)
]
Description = Annotated[
    str, StringConstraints(max_length=DESCRIPTION_LIMIT), AfterValidator(_one_line)
]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal["interlock.pulls/1"] = FORMAT

    def content(self) -> bytes:
        """The one form in which it is written: canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))


class PullDocument(_Document):
    """`pulls/<number>/pull.json`."""

    number: Annotated[int, Field(ge=1, le=999_999_999)]
    title: Title
    body: Body = ""
    source: BranchText
    target: BranchText
    opener: LoginText
    opened_at: Moment
    state: Annotated[PullState, Field(strict=False)] = PullState.OPEN
    head: CommitText | None = None
    merged: CommitText | None = None
    closer: LoginText | None = None
    closed_at: Moment | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.source == self.target:
            raise ValueError("source and target are the same branch")
        if (self.state is PullState.OPEN) != (self.closed_at is None):
            raise ValueError("closed_at goes with the states merged and closed")
        if self.merged is not None and self.state is not PullState.MERGED:
            raise ValueError("merged goes with the state merged")
        return self

    def value(self, head: CommitId | None) -> Pull:
        """As the rest of the program knows it. `head` is that of the source branch now."""
        return Pull(
            number=PullNumber(self.number),
            title=self.title,
            body=self.body,
            source=self.source,
            target=self.target,
            opener=Login(self.opener),
            opened_at=Millis(self.opened_at),
            state=self.state,
            head=head if self.state is PullState.OPEN else _known(self.head),
            merged=_known(self.merged),
            closer=Login(self.closer) if self.closer else None,
            closed_at=Millis(self.closed_at) if self.closed_at is not None else None,
        )


class CommentDocument(_Document):
    """`pulls/<number>/comments/<id>.json`."""

    id: Annotated[int, Field(ge=1, le=999_999_999)]
    author: LoginText
    body: Body
    at: Moment
    head: CommitText | None = None
    bot: bool = False
    edited_at: Moment | None = None

    def value(self) -> Comment:
        """As the rest of the program knows it."""
        return Comment(
            id=self.id,
            author=Login(self.author),
            body=self.body,
            at=Millis(self.at),
            head=_known(self.head),
            bot=self.bot,
            edited_at=Millis(self.edited_at) if self.edited_at is not None else None,
        )


class StatusEntry(BaseModel):
    """What one check says of one head."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    state: Annotated[StatusState, Field(strict=False)]
    description: Description = ""
    at: Moment


class StatusDocument(_Document):
    """`pulls/<number>/statuses.json`: head → context → what it says."""

    heads: Annotated[
        dict[CommitText, Annotated[dict[Context, StatusEntry], Field(max_length=100)]],
        Field(max_length=MOST_HEADS),
    ] = {}

    def values(self, head: CommitId) -> tuple[Status, ...]:
        """Those of one commit, by context."""
        return tuple(
            Status(head, context, entry.state, entry.description, Millis(entry.at))
            for context, entry in sorted(self.heads.get(head, {}).items())
        )

    def with_entry(self, head: CommitId, context: str, entry: StatusEntry) -> StatusDocument:
        """With one entry more, the heads that were spoken of longest ago left out. ForgeRefused."""
        heads = {**self.heads, head: {**self.heads.get(head, {}), context: entry}}
        newest = sorted(heads, key=lambda one: max(e.at for e in heads[one].values()))
        kept = {*newest[-MOST_HEADS:], head}
        return made(StatusDocument, heads={one: heads[one] for one in heads if one in kept})


D = TypeVar("D", bound=_Document)


class Malformed(Exception):
    """A file that cannot be used, as findings of its pull."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__("; ".join(str(finding) for finding in findings))
        self.findings = findings


def folder_of(number: PullNumber | int) -> str:
    """`pulls/7`."""
    return f"{FOLDER}/{number}"


def read_pull(tree: Tree, number: PullNumber) -> PullDocument:
    """The pull's own file. Malformed."""
    path = f"{folder_of(number)}/pull.json"
    found = _read(tree, path, PullDocument)
    if found.number != number:
        raise Malformed(_finding(path, f"says it is number {found.number}"))
    return found


def read_comments(tree: Tree, number: PullNumber) -> tuple[Comment, ...]:
    """All comments of a pull, by id. Malformed tells all that is wrong with any of them."""
    folder = f"{folder_of(number)}/comments"
    found: list[Comment] = []
    findings: list[Finding] = []
    entries = _entries(tree, folder)
    if len(entries) > MOST_COMMENTS:
        raise Malformed(_finding(folder, f"holds more than {MOST_COMMENTS:,} comments"))
    for entry in entries:
        path = f"{folder}/{entry.name}"
        stem = entry.name.removesuffix(".json")
        try:
            if not (entry.name.endswith(".json") and _NUMBER.fullmatch(stem)):
                raise Malformed(_finding(path, "is not called <id>.json"))
            document = _read(tree, path, CommentDocument)
            if document.id != int(stem):
                raise Malformed(_finding(path, f"says its id is {document.id}"))
        except Malformed as wrong:
            findings += wrong.findings
        else:
            found.append(document.value())
    if findings:
        raise Malformed(*findings)
    return tuple(sorted(found, key=lambda comment: comment.id))


def read_statuses(tree: Tree, number: PullNumber) -> StatusDocument:
    """What checks said; an empty document when none has. Malformed."""
    path = f"{folder_of(number)}/statuses.json"
    if not any(entry.name == "statuses.json" for entry in _entries(tree, folder_of(number))):
        return StatusDocument()
    return _read(tree, path, StatusDocument)


def numbers(tree: Tree) -> Mapping[PullNumber, Entry]:
    """The pulls there are, by number. Names that are no number are nobody's pull: left out."""
    return {
        PullNumber(int(entry.name)): entry
        for entry in _entries(tree, FOLDER)
        if _NUMBER.fullmatch(entry.name)
    }


def next_id(taken: Iterable[int]) -> int:
    """One more than the highest there is."""
    return max(taken, default=0) + 1


def _entries(tree: Tree, folder: str) -> tuple[Entry, ...]:
    try:
        return tree.entries(folder)
    except MissingPath:
        return ()
    except UnsafePath as error:
        raise Malformed(_finding(folder, str(error))) from None


def _read(tree: Tree, path: str, kind: type[D]) -> D:
    folder, _, name = path.rpartition("/")
    entry = next((one for one in _entries(tree, folder) if one.name == name), None)
    if entry is None:
        raise Malformed(_finding(path, "is missing"))
    if entry.kind is not Kind.BLOB:
        raise Malformed(_finding(path, f"is a {entry.kind}, not a file"))
    try:
        return kind.model_validate_json(tree.read(path, limit=MOST_BYTES))
    except SourceTooLarge as error:
        raise Malformed(_finding(path, f"is larger than {MOST_BYTES:,} bytes")) from error
    except (MissingPath, UnsafePath) as error:
        raise Malformed(_finding(path, str(error))) from None
    except ValidationError as error:
        raise Malformed(*(_finding(path, text) for text in _reasons(error))) from None


def made(kind: type[D], **fields: object) -> D:
    """A document of our own making. ForgeRefused when what was asked for is not valid."""
    try:
        return kind.model_validate({"format": FORMAT, **fields})
    except ValidationError as error:
        raise ForgeRefused("; ".join(_reasons(error))) from None


def _reasons(error: ValidationError) -> list[str]:
    found = []
    for one in error.errors(include_url=False, include_context=False)[:5]:
        where = ".".join(str(part) for part in one["loc"])
        text = one["msg"].removeprefix("Value error, ")
        found.append(f"{quoted(where)}: {text}" if where else text)
    return found


def _finding(path: str, message: str) -> Finding:
    return Finding(
        id="malformed-pull",
        severity=Severity.ERROR,
        file=path,
        line=1,
        column=1,
        message=message,
        fix=f"put the file right on the branch {BRANCH}, or remove it there",
    )


def _known(commit: str | None) -> CommitId | None:
    return CommitId(ObjectId(commit)) if commit is not None else None
