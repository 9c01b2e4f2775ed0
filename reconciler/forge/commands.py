"""What a person asks for in a comment: `/interlock approve`. Pure.

A comment is prose that may quote others, show examples and hide text. A command counts only where
every reader of the rendered comment sees it as what its author says: on a line of its own, at its
very start, outside quotations, code and HTML. Which construct a line is in follows CommonMark
(https://spec.commonmark.org/0.31.2/) where that is simple, at the left margin. Where it is not (a
fence inside a list, HTML that may go on for lines) nothing further down is read: a command that is
overlooked is written again, one that was never meant is not taken back.

Only what was said first counts: a comment that was edited afterwards, a bot's, and our own ask for
nothing. No command names another person: whoever writes it is who approves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from reconciler.findings import printable
from reconciler.forge.model import Comment

MOST_COMMANDS = 20
MOST_SCOPES = 50
REASON_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Approve:
    """Let the change have what it newly asks for. No scopes: all that its author may approve."""

    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """Run the offline gate on the pull's head."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Make the plan again."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Say no, with a reason; it is no Markdown and has no control characters."""

    reason: str


@dataclass(frozen=True, slots=True)
class Help:
    """Say what can be asked for."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """Meant for us and not understood: `answer` is Markdown to reply with, safe to post."""

    answer: str


Command = Approve | Gate | Plan | Reject | Help | Mistake

VERBS = ("approve", "gate", "plan", "reject", "help")
HELP = """\
A command stands at the start of a line of its own, in a new comment:

| Command | Does |
|:--|:--|
| `/interlock approve` | let this change have what it newly asks for, as far as you may say so |
| `/interlock approve SCOPE…` | only these scopes, as the plan names them: `agent/ci-triage` |
| `/interlock reject REASON` | say no; earlier approvals of this change are void |
| `/interlock gate` | run the evals of what this change would make live |
| `/interlock plan` | make the plan again |
| `/interlock help` | this list |

You approve in your own name only, and not what you wrote yourself. Quoted, indented or edited \
text, code and bots are never read as commands; nor is anything below HTML or below code in a \
list."""

# The line as a whole: anything else on it makes it an argument, or no command at all.
_COMMAND = re.compile(r"/interlock(?:[ \t]+(.*))?", re.IGNORECASE | re.ASCII)
_SCOPE = re.compile(r"[a-z0-9][a-z0-9-]*(?:/[A-Za-z0-9*][A-Za-z0-9._*-]*)*", re.ASCII)
_SOMEBODY = re.compile(
    r"@|(?:--?)?(?:as|for|by|on-behalf-of|approver|user|actor)(?:[=:]|$)", re.IGNORECASE
)

_BLANK = re.compile(r"[ \t]*")
_FENCE = re.compile(r"(`{3,}|~{3,})(.*)")
_HIDDEN = "<!--"
# What may begin something that goes on below in ways that only a full parser could tell: a fence
# that is indented or in a list, a quotation between lines of `>>>` (GitLab), HTML, a formula.
_BEYOND_US = re.compile(r"[ \t>*+.)\d-]*(?:```|~~~)|>>>|.*(?:<[A-Za-z/!?]|\$\$)")
# Where this comes first, GitLab shows what follows as code.
_FRONT_MATTER = re.compile(r"---|\+\+\+|;;;")
# A line after which the next one may still be inside something: a quotation or a list item that
# goes on lazily, a code span, a link's title, an escape, a table.
_OPEN_ENDED = re.compile(r"[ \t]|[>*+-]|\d+[.)]|.*[`<>\[\]|\\]")


def commands_in(comment: Comment, *, ourselves: Collection[str]) -> tuple[Command, ...]:
    """What the comment asks for. `ourselves`: logins whose comments are our own."""
    ours = {login.casefold() for login in ourselves}
    if comment.bot or comment.edited_at is not None or comment.author.casefold() in ours:
        return ()
    return parse(comment.body)


def parse(body: str) -> tuple[Command, ...]:
    """The commands in a text, in order, each one once; at most MOST_COMMANDS are read."""
    found: list[Command] = []
    for line in _said(body):
        matched = _COMMAND.fullmatch(line)
        if matched is not None:
            command = _understood((matched[1] or "").replace("\t", " ").strip(" "))
            if command not in found:
                found.append(command)
            if len(found) == MOST_COMMANDS:
                break
    return tuple(found)


def _said(body: str) -> Iterator[str]:
    """The lines at the left margin that are certainly the author's own visible text."""
    fence = ""
    hidden = open_ended = begun = False
    for line in re.split(r"\r\n|\r|\n", body):
        if fence:
            if re.fullmatch(rf" {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*", line):
                fence = ""
            continue
        if hidden or line.startswith(_HIDDEN):
            if "<" in (line if hidden else line.removeprefix(_HIDDEN)):
                return  # perhaps another one begins where this one ends
            hidden, open_ended, begun = "-->" not in line, False, True
            continue
        if _BLANK.fullmatch(line):
            open_ended = False
            continue
        if not begun and _FRONT_MATTER.match(line):
            return
        begun = True
        opened = _FENCE.fullmatch(line)
        if opened is not None and not (opened[1][0] == "`" and "`" in opened[2]):
            fence, open_ended = opened[1], False
            continue
        if not open_ended and line.startswith("/"):
            yield line
        if _BEYOND_US.match(line):
            return
        open_ended = open_ended or _OPEN_ENDED.match(line) is not None


def _understood(text: str) -> Command:
    if not text.isprintable():
        return Mistake(f"That command has characters that cannot be seen.\n\n{HELP}")
    verb, _, rest = text.partition(" ")
    rest = rest.strip(" ")
    match verb.lower():
        case "" | "help":
            return Help()
        case "approve":
            return _approve(rest.split())
        case "reject" if rest:
            return Reject(rest[:REASON_LIMIT])
        case "reject":
            return Mistake("`/interlock reject` needs a reason: the author will ask.")
        case "gate" | "plan" if rest:
            return Mistake(
                f"`/interlock {verb.lower()}` takes nothing after it, not {_code(rest)}."
            )
        case "gate":
            return Gate()
        case "plan":
            return Plan()
    close = get_close_matches(verb.lower(), VERBS, n=1, cutoff=0.6)
    hint = f" Did you mean `/interlock {close[0]}`?" if close else ""
    return Mistake(f"There is no command {_code(verb)}.{hint}\n\n{HELP}")


def _approve(words: list[str]) -> Command:
    for word in words:
        if _SOMEBODY.match(word):
            return Mistake(
                f"{_code(word)}: nobody approves in another's name. Whoever is to approve writes "
                "`/interlock approve` themselves."
            )
        if not _SCOPE.fullmatch(word) or len(word) > 200:
            return Mistake(
                f"{_code(word)} is no scope. The plan names them: `agent/NAME`, "
                "`budget/NAME`, …; `/interlock approve` alone means all that you may approve."
            )
    if len(words) > MOST_SCOPES:
        return Mistake(
            f"More than {MOST_SCOPES} scopes in one command; `/interlock approve` alone means all."
        )
    return Approve(tuple(dict.fromkeys(words)))


def _code(text: str) -> str:
    """A stranger's words inside our own Markdown: they mention nobody and link nowhere."""
    shown = printable(text).replace("`", "'")
    return f"`{shown if len(shown) <= 60 else shown[:59] + '…'}`"
