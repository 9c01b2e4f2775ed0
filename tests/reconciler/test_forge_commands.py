"""Commands in comments: what counts as said, what is understood, and what is answered."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gateway.values import Millis
from reconciler.forge.commands import (
    MOST_COMMANDS,
    Approve,
    Command,
    Gate,
    Help,
    Mistake,
    Plan,
    Reject,
    commands_in,
    parse,
)
from reconciler.forge.model import Comment, Login


def comment(body: str, *, author: str = "anna", **other: object) -> Comment:
    return Comment(1, Login(author), body, Millis(0), None, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body, command",
    [
        ("/interlock approve", Approve()),
        ("/interlock approve  ", Approve()),
        ("/Interlock Approve", Approve()),
        ("/interlock\tapprove\tagent/ci-triage", Approve(("agent/ci-triage",))),
        (
            "/interlock approve agent/ci tool/tracker.save_draft agent/ci",
            Approve(("agent/ci", "tool/tracker.save_draft")),
        ),
        ("/interlock gate", Gate()),
        ("/interlock plan", Plan()),
        ("/interlock reject  it can post @everywhere ", Reject("it can post @everywhere")),
        ("/interlock help", Help()),
        ("/interlock", Help()),
        ("Looks good to me.\n/interlock approve\nThank you!", Approve()),
        ("Looks good to me.\r\n\r\n/interlock approve\r\n", Approve()),
        ("```\nsome code\n```\n/interlock approve", Approve()),
        ("> somebody else\n\n/interlock approve", Approve()),
        ("- a list\n- of things\n\n/interlock approve", Approve()),
        ("<!-- from a template -->\n/interlock approve", Approve()),
        ("<!--\nfrom a template\n\n-->\n/interlock approve", Approve()),
    ],
)
def test_a_line_of_its_own_is_a_command(body: str, command: Command) -> None:
    assert parse(body) == (command,)


def test_several_commands_are_read_in_order_and_each_once() -> None:
    body = "/interlock gate\n/interlock approve\n\n/interlock gate"
    assert parse(body) == (Gate(), Approve())


def test_a_comment_full_of_commands_is_read_up_to_a_limit() -> None:
    body = "\n".join(f"/interlock reject {number}" for number in range(1000))
    assert len(parse(body)) == MOST_COMMANDS


@pytest.mark.parametrize(
    "body",
    [
        "",
        "please /interlock approve",
        " /interlock approve",
        "\t/interlock approve",
        "\u200b/interlock approve",
        "//interlock approve",
        "/interlocked approve",
        "\\/interlock approve",
        "@bot /interlock approve",
        "> /interlock approve",
        "> she said\n/interlock approve",
        "- > she said\n/interlock approve",
        "    /interlock approve",
        "`/interlock approve`",
        "`an example:\n/interlock approve\n`",
        "``one ` two\n/interlock approve\n``",
        "```\n/interlock approve\n```",
        "```\n/interlock approve",
        "~~~ text\n/interlock approve\n~~~",
        "````\n```\n/interlock approve\n````",
        "```\n``` not an end\n/interlock approve\n```",
        "- ```\n/interlock approve\n```\n/interlock approve",
        "- item\n  ```\n/x\n```\n/interlock approve",
        "<!-- /interlock approve -->",
        "<!--\n/interlock approve\n-->",
        "<!-- one --> <!-- two\n\n/interlock approve",
        "see <!-- this\n/interlock approve\n-->",
        "see <!-- this\n\n```\n-->\n/interlock approve\n```",
        "<details>\n\n/interlock approve\n\n</details>",
        "<pre>\n\n/interlock approve\n</pre>",
        'see <a title="\n/interlock approve\n">',
        '[it](https://example.org "\n/interlock approve\n")',
        '[it]: https://example.org "\n/interlock approve\n"',
        "$$\n/interlock approve\n$$",
        ">>>\n\n/interlock approve\n\n>>>",
        "---\n\n/interlock approve\n\n---",
    ],
)
def test_quoted_indented_hidden_or_shown_code_is_no_command(body: str) -> None:
    assert parse(body) == ()


@pytest.mark.parametrize(
    "other", [{"bot": True}, {"edited_at": Millis(5)}, {"author": "Interlock"}]
)
def test_bots_ourselves_and_edited_comments_ask_for_nothing(other: dict[str, object]) -> None:
    assert commands_in(comment("/interlock approve"), ourselves=["interlock"]) == (Approve(),)
    assert commands_in(comment("/interlock approve", **other), ourselves=["interlock"]) == ()


@pytest.mark.parametrize(
    "words", ["@bob", "as bob", "agent/ci for bob", "--as bob", "as=bob", "by: bob", "user=bob"]
)
def test_nobody_can_be_named_as_the_one_who_approves(words: str) -> None:
    (answer,) = parse(f"/interlock approve {words}")
    assert isinstance(answer, Mistake)
    assert "another's name" in answer.answer


@pytest.mark.parametrize(
    "line, told",
    [
        ("/interlock aprove", "Did you mean `/interlock approve`?"),
        ("/interlock deploy", "There is no command `deploy`."),
        ("/interlock reject", "needs a reason"),
        ("/interlock gate now", "takes nothing after it"),
        ("/interlock approve agent/../x", "is no scope"),
        ("/interlock approve everything, please", "`everything,` is no scope"),
        ("/interlock approve " + "a" * 201, "is no scope"),
        ("/interlock approve " + " ".join(f"a{n}" for n in range(51)), "More than 50 scopes"),
        ("/interlock approve\x0b", "cannot be seen"),
        ("/interlock approve agent/\u202eci", "cannot be seen"),
    ],
)
def test_what_is_not_understood_is_answered(line: str, told: str) -> None:
    (answer,) = parse(line)
    assert isinstance(answer, Mistake)
    assert told in answer.answer


def test_an_answer_repeats_a_stranger_s_words_only_as_code() -> None:
    (answer,) = parse("/interlock `@team</code><img>" + "x" * 500)
    assert isinstance(answer, Mistake)
    shown = re.search(r"There is no command `([^`]*)`", answer.answer)
    assert shown is not None
    assert len(shown[1]) <= 60
    assert parse(answer.answer) == ()


LINES = st.sampled_from(
    [
        *("", "", "", " ", "\t", "prose", "prose `code`", "prose ` open", "``", "a ``` b"),
        *("```", "````", "~~~", "~~~~ x", "``` x", "``` `", " ```", "   ```", "    ```", "\t```"),
        *("> quoted", "> ```", ">", ">>> x", "- item", "- ```", "  - ~~~", "1. one", "1) ```"),
        *("* > q", "+", "---", "===", "# head", "| a |", "|---|", "a | b", "- | -"),
        *("<!--", "-->", "<!-- x -->", "a <!-- b", "<!-->", "<!--->", "--> x", "<!-- --> <!--"),
        *(
            "<pre>",
            "</pre>",
            "<details>",
            "<b",
            '<a title="',
            '">',
            "<?x",
            "?>",
            "<![CDATA[",
            "]]>",
        ),
        *("[x]: y '", "'", "[x](y '", "')", "[x]:", "![", "\\", "a\\", "&lt;", "    code", "  two"),
    ]
)
COMMANDS = st.sampled_from(["C", "C", "`C", " C", "> C", "C`", "- C", "<C", "\tC", "    C"])


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """Markdown in which every command has a number of its own."""
    lines: list[str] = []
    for number in range(draw(st.integers(1, 4))):
        lines += draw(st.lists(LINES, max_size=6))
        lines.append(draw(COMMANDS).replace("C", f"/interlock reject n{number}n"))
    lines += draw(st.lists(LINES, max_size=4))
    return "".join(line + draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])) for line in lines)


COMPLETE = re.compile(r"<!--(?:>|->|.*?-->)", re.DOTALL)


def visible_lines(body: str) -> list[str]:
    """Lines of text in top-level paragraphs and headings, as a real parser of CommonMark sees it.

    What stands behind an HTML comment that nobody closed is not seen by a reader either.
    """
    lines: list[str] = []
    swallowed = False
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        if token.type in ("html_block", "html_inline"):
            swallowed = swallowed or "<!--" in COMPLETE.sub("", token.content)
        if token.type != "inline" or token.level != 1 or swallowed:
            continue
        line = ""
        for child in token.children or []:
            if child.type in ("softbreak", "hardbreak"):
                lines.append(line)
                line = ""
            elif child.type == "text":
                line += child.content
            else:
                line += "\0"
        lines.append(line)
    return lines


@settings(max_examples=500)
@given(bodies())
@example("a <!-- b\n\n```\n-->\n/interlock reject n0n\n")
@example("- ```\nx\n```\n/interlock reject n0n\n")
def test_a_command_is_always_visible_text_at_the_start_of_a_line(body: str) -> None:
    seen = visible_lines(body)
    for command in parse(body):
        if isinstance(command, Reject):
            said = command.reason.rstrip("`")
            assert any(line.startswith(f"/interlock reject {said}") for line in seen), body


COMMAND_LINES = st.sampled_from(["/interlock approve", "/interlock gate", "/interlock nonsense"])
TEXTS = st.lists(st.one_of(COMMAND_LINES, LINES), min_size=1, max_size=8)


@given(TEXTS, st.sampled_from([">", "> ", " ", "  ", "    ", "\t", "- ", "1. ", "  > "]))
def test_no_line_is_a_command_once_it_is_quoted_or_indented(lines: list[str], before: str) -> None:
    assert parse("\n".join(before + line for line in lines)) == ()


@given(TEXTS, st.sampled_from(["`", "~"]), st.integers(3, 6))
def test_no_line_is_a_command_once_it_is_fenced(lines: list[str], mark: str, count: int) -> None:
    inside = [line for line in lines if not line.strip().startswith(mark * count)]
    assert parse("\n".join([mark * count, *inside, mark * count])) == ()


@given(TEXTS)
def test_no_line_is_a_command_inside_an_html_comment(lines: list[str]) -> None:
    inside = [line for line in lines if "-->" not in line]
    assert parse("\n".join(["<!--", *inside, "-->"])) == ()


@given(st.text())
def test_any_text_at_all_is_read_without_an_error(text: str) -> None:
    parse(text)
    for command in parse(f"/interlock {text}"):
        assert not (isinstance(command, Mistake) and parse(command.answer))
