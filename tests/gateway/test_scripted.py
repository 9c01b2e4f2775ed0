"""The scripted model: it acts on what it reads, and only on that."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.policy import Recall, Rule, Script, ScriptedCall, When
from gateway.providers import scripted
from gateway.providers.conversation import (
    Message,
    ModelRequest,
    Stop,
    Text,
    Tool,
    ToolResult,
    ToolUse,
)


def conversation(*turns: tuple[str, str], user: str = "go", system: str = "") -> ModelRequest:
    """A user message, then (tool, result) turns."""
    messages = [Message("user", (Text(user),))]
    for number, (tool, text) in enumerate(turns):
        messages.append(Message("assistant", (ToolUse(f"c{number}", tool, "{}"),)))
        messages.append(Message("user", (ToolResult(f"c{number}", text),)))
    tools = tuple(Tool(name, "", {}) for name in ("shell", "read_file", "ci__job"))
    return ModelRequest("m", tuple(messages), system=system, tools=tools)


def say(request: ModelRequest, *rules: Rule) -> str:
    return scripted.answer(Script(rules=rules), request).text


def holds(request: ModelRequest, **when: Any) -> bool:
    return say(request, Rule(name="r", when=When(**when), say="yes")) == "yes"


SEEN = conversation(("shell", "3 failed\nE: boom"), ("read_file", "x = 1"), system="You are M.")


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({}, True),
        ({"system": "You are"}, True),
        ({"system": "checker"}, False),
        ({"not_system": "You are"}, False),
        ({"not_system": "checker"}, True),
        ({"first": True}, False),
        ({"first": False}, True),
        ({"last_tool": "read_*"}, True),
        ({"last_tool": "shell"}, False),
        ({"last": "^x"}, True),
        ({"last": "boom"}, False),
        ({"not_last": "boom"}, True),
        ({"not_last": "x"}, False),
        ({"user": "^go$"}, True),
        ({"user": "stop"}, False),
        ({"seen": "^E: boom$"}, True),
        ({"seen": "nothing"}, False),
        ({"not_seen": "boom"}, False),
        ({"not_seen": "nothing"}, True),
        ({"calls": "sh*"}, True),
        ({"calls": "ci__*"}, False),
        ({"not_calls": "shell"}, False),
        ({"not_calls": "ci__job"}, True),
        ({"seen": "boom", "last": "boom"}, False),
    ],
)
def test_each_condition_looks_where_it_says(when: dict[str, Any], expected: bool) -> None:
    assert holds(SEEN, **when) is expected


def test_nothing_observed_yet_is_first() -> None:
    assert holds(conversation(), first=True)
    assert not holds(conversation(), last=".*")
    assert not holds(conversation(), last_tool="*")


def test_the_first_rule_that_holds_decides() -> None:
    rules = (
        Rule(name="a", when=When(first=True), say="a"),
        Rule(name="b", say="b"),
        Rule(name="c", say="c"),
    )
    assert say(SEEN, *rules) == "b"
    assert say(conversation(), *rules) == "a"


def test_named_groups_and_recall_fill_templates_and_other_braces_stay() -> None:
    rule = Rule(
        name="fix",
        when=When(last="x = (?P<value>\\d)", user="(?P<verb>go)"),
        recall={
            "error": Recall(pattern="E: (\\w+)", tool="shell"),
            "count": Recall(pattern="\\d+ failed"),
        },
        say="{verb}: {error} after {count}, {unknown}",
        call=ScriptedCall(
            tool="shell", args={"cmd": "d = {'a': {value}}; {}", "list": ["{error}", 3]}
        ),
    )
    reply = scripted.answer(Script(rules=(rule,)), SEEN)
    assert reply.text == "go: boom after 3 failed, {unknown}"
    assert reply.tools[0].name == "shell"
    assert reply.tools[0].arguments == '{"cmd": "d = {\'a\': 1}; {}", "list": ["boom", 3]}'
    assert reply.stop is Stop.TOOL


def test_recall_takes_the_last_match() -> None:
    request = conversation(("shell", "v1 v2"), ("shell", "v3 v4"), ("read_file", "v5"))
    rule = Rule(name="r", recall={"v": Recall(pattern="v\\d", tool="shell")}, say="{v}")
    assert say(request, rule) == "v4"


def test_a_rule_whose_recall_finds_nothing_does_not_apply() -> None:
    rule = Rule(name="r", recall={"v": Recall(pattern="zzz")}, say="{v}")
    assert say(SEEN, rule, Rule(name="s", say="other")) == "other"


def test_a_wrong_observation_gives_a_wrong_act() -> None:
    rules = (
        Rule(name="ok", when=When(last="3 passed"), say="done"),
        Rule(
            name="fix",
            when=When(last="failed in (?P<file>\\S+)"),
            call=ScriptedCall(tool="read_file", args={"path": "{file}"}),
        ),
    )
    fixing = scripted.answer(Script(rules=rules), conversation(("shell", "failed in a.py")))
    assert fixing.tools[0].arguments == '{"path": "a.py"}'
    assert say(conversation(("shell", "3 passed")), *rules) == "done"
    assert say(conversation(("shell", "segfault")), *rules) == scripted.LOST


def test_a_tool_that_is_not_offered_leaves_the_model_lost() -> None:
    rules = (
        Rule(name="r", say="I will", call=ScriptedCall(tool="deploy")),
        Rule(name="s", say="never reached"),
    )
    assert say(SEEN, *rules) == scripted.LOST


def test_usage_is_a_token_per_four_characters_rounded_up() -> None:
    rule = Rule(name="r", say="12345")
    bare = ModelRequest("m", (Message("user", (Text("abcde"),)),), system="xyz")
    usage = scripted.answer(Script(rules=(rule,)), bare).usage
    assert usage is not None
    assert (usage.input, usage.output) == (2, 2)


def test_the_output_limit_cuts_like_a_real_models() -> None:
    rule = Rule(name="r", say="0123456789", call=ScriptedCall(tool="shell", args={"c": "x"}))
    request = ModelRequest("m", SEEN.messages, tools=SEEN.tools, max_output_tokens=1)
    reply = scripted.answer(Script(rules=(rule,)), request)
    assert (reply.text, reply.tools, reply.stop) == ("0123", (), Stop.LENGTH)
    assert reply.usage is not None
    assert reply.usage.output == 1


def test_tool_calls_of_one_conversation_have_different_ids() -> None:
    rule = Rule(name="r", call=ScriptedCall(tool="shell"))
    ids = {
        scripted.answer(Script(rules=(rule,)), conversation(*[("shell", "x")] * n)).tools[0].id
        for n in range(3)
    }
    assert len(ids) == 3
