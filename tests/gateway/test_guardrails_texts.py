"""Every text of a document is looked at, in each dialect, and nothing else is touched."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.guardrails import Guard, Guardrails, Refused, texts
from gateway.guardrails.compiled import Seen
from gateway.policy.rules import (
    Check,
    GlobsCheck,
    Guardrail,
    Hook,
    HttpCheck,
    PiiCheck,
    RegexCheck,
    SchemaCheck,
    SecretsCheck,
)
from gateway.refusals import Refusal
from gateway.values import Millis

CHAT = {
    "model": "X",
    "user": "X",
    "messages": [
        {"role": "system", "content": "T", "name": "X"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "T"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,X"}},
                {"type": "input_audio", "input_audio": {"data": "X", "format": "wav"}},
                {"type": "file", "file": {"file_data": "X", "filename": "T"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "refusal": "T",
            "tool_calls": [
                {
                    "id": "X",
                    "type": "function",
                    "function": {"name": "X", "arguments": '{"name": "T", "n": [1, "T"]}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "X", "content": "T"},
    ],
    "tools": [{"type": "function", "function": {"name": "X", "description": "X"}}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "X", "schema": {"a": "X"}}},
}
CHAT_ANSWER = {
    "id": "X",
    "object": "X",
    "choices": [
        {
            "index": 0,
            "finish_reason": "X",
            "logprobs": {"content": [{"token": "X"}]},
            "message": {"role": "assistant", "content": "T"},
        }
    ],
}
RESPONSES = {
    "instructions": "T",
    "previous_response_id": "X",
    "input": [
        {"role": "user", "content": "T"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "T"}]},
        {"type": "function_call", "call_id": "X", "name": "X", "arguments": '{"a": "T"}'},
        {"type": "function_call_output", "call_id": "X", "output": "T"},
        {"type": "custom_tool_call", "call_id": "X", "name": "X", "input": "T"},
        {
            "type": "reasoning",
            "id": "X",
            "summary": [{"type": "summary_text", "text": "T"}],
            "encrypted_content": "X",
        },
    ],
    "prompt": {"id": "X", "version": "X", "variables": {"city": "T"}},
    "text": {"format": {"type": "json_schema", "name": "X", "schema": {"a": "X"}}},
}
RESPONSES_ANSWER = {
    "id": "X",
    "status": "X",
    "output": [
        {
            "type": "message",
            "id": "X",
            "content": [{"type": "output_text", "text": "T", "annotations": [{"url": "X"}]}],
        },
        {"type": "function_call", "id": "X", "name": "X", "arguments": '{"a": "T"}'},
    ],
}
MESSAGES = {
    "model": "X",
    "system": [{"type": "text", "text": "T", "cache_control": {"type": "X"}}],
    "metadata": {"user_id": "X"},
    "messages": [
        {"role": "user", "content": "T"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "X", "signature": "X"},
                {"type": "text", "text": "T"},
                {"type": "tool_use", "id": "X", "name": "X", "input": {"name": "T", "b": ["T"]}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "X", "content": "T"},
                {
                    "type": "tool_result",
                    "tool_use_id": "X",
                    "content": [
                        {"type": "text", "text": "T"},
                        {"type": "image", "source": {"type": "base64", "data": "X"}},
                    ],
                },
                {"type": "document", "source": {"type": "text", "data": "T", "media_type": "X"}},
                {"type": "document", "source": {"type": "base64", "data": "X"}, "title": "T"},
                {"type": "a_block_of_next_year", "id": "X", "words": {"a": "T"}},
            ],
        },
    ],
    "tools": [{"name": "X", "input_schema": {"a": "X"}}],
}
MESSAGES_ANSWER = {
    "id": "X",
    "role": "X",
    "content": [
        {"type": "text", "text": "T"},
        {"type": "tool_use", "id": "X", "name": "X", "input": {"a": "T"}},
    ],
    "stop_reason": "X",
}
DOCUMENTS = {
    name: value for name, value in globals().items() if name.isupper() and name != "DOCUMENTS"
}
RESULT = {
    "content": [
        {"type": "text", "text": "T"},
        {"type": "image", "data": "X", "mimeType": "X"},
        {"type": "resource", "resource": {"uri": "X", "text": "T"}},
        {"type": "resource", "resource": {"uri": "X", "blob": "X"}},
    ],
    "structuredContent": {"name": "T", "id": "T", "list": [{"url": "T"}]},
    "isError": False,
}


def guard(check: Check, hook: Hook = Hook.MODEL_INPUT, action: str = "mutate") -> Guard:
    rule = Guardrail(name="r", hooks=tuple(Hook), check=check, action=action)  # type: ignore[arg-type]
    found = Guardrails((rule,)).at(hook, agent="a", team="t", model="m")
    assert found is not None
    return found


def replaced(document: Any, walk: texts.Walk) -> str:
    return json.dumps(
        guard(RegexCheck(pattern="T", replacement="t")).look_through(document, walk).value
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_text_of_a_model_s_document_is_looked_at_and_nothing_else(name: str) -> None:
    document = DOCUMENTS[name]
    before = copy.deepcopy(document)
    assert replaced(document, texts.said) == json.dumps(before).replace("T", "t")
    assert replaced(json.loads(json.dumps(before).replace("X", "T")), texts.said).count("T") == (
        json.dumps(before).count("X")
    )
    assert document == before


def test_every_text_of_a_tool_s_result_is_looked_at_and_nothing_else() -> None:
    assert replaced(RESULT, texts.result) == json.dumps(RESULT).replace('"T"', '"t"')


def test_every_value_of_arguments_is_a_text_and_so_are_odd_keys_and_long_numbers() -> None:
    arguments = {
        "id": "a.b@c.org",
        "list": [{"type": "a.b@c.org"}],
        "a.b@c.org": 1,
        "card": 4111111111111111,
        "n": 7,
        "yes": True,
    }
    found = guard(PiiCheck(kinds=("email", "credit_card")), Hook.TOOL_INPUT)
    assert found.look_through(arguments, texts.everything).value == {
        "id": "[email]",
        "list": [{"type": "[email]"}],
        "[email]": 1,
        "card": "[credit_card]",
        "n": 7,
        "yes": True,
    }


def test_arguments_may_be_any_mapping() -> None:
    arguments = MappingProxyType({"to": ("a.b@c.org",)})
    found = guard(PiiCheck(kinds=("email",)), Hook.TOOL_INPUT)
    assert found.look_through(arguments, texts.everything).value == {"to": ["[email]"]}
    schema = guard(SchemaCheck(json_schema={"required": ["cc"]}), Hook.TOOL_INPUT, "validate")
    with pytest.raises(Refused):
        schema.look("", value=arguments)


def test_escapes_in_the_json_text_of_arguments_hide_nothing() -> None:
    text = '{"to": "a.b\\u0040c.org"}'
    assert texts.json_text(text, lambda t: t.replace("@", "!")) == '{"to": "a.b!c.org"}'
    assert texts.json_text("not json @", lambda t: t.replace("@", "!")) == "not json !"


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize("walk", [texts.said, texts.everything, texts.result])
@given(value=json_values)
def test_a_document_in_which_nothing_changes_is_the_very_same_object(
    walk: texts.Walk, value: Any
) -> None:
    document = {"messages": value, "content": value, "structuredContent": value}
    assert walk(document, lambda text: text) is document


@pytest.mark.parametrize("walk", [texts.said, texts.everything, texts.result])
def test_a_document_that_is_nested_without_end_is_refused(walk: texts.Walk) -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    with pytest.raises(Refusal, match="nested deeper"):
        walk({"messages": deep, "content": deep}, lambda text: text)


def test_a_conversation_that_is_sent_again_costs_only_what_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = guard(SecretsCheck())
    looked: list[str] = []
    search = found._rules.each[0].searches[0]
    real: Callable[..., Any] = search.find

    def find(text: str, *args: Any, **more: Any) -> Any:
        looked.append(text)
        return real(text, *args, **more)

    monkeypatch.setattr(search, "find", find)
    turns = [{"role": "user", "content": f"turn {n}"} for n in range(5)]
    for end in range(1, 6):
        found.look_through({"messages": turns[:end]}, texts.said)
    assert looked == [f"turn {n}" for n in range(5)]


def test_what_is_remembered_as_clean_is_bounded() -> None:
    seen = Seen(2)
    a, b, c = map(seen.digest, "abc")
    for digest in (a, b):
        seen.add(digest)
    assert a in seen
    seen.add(c)
    assert [digest in seen for digest in (a, b, c)] == [True, False, True]


def test_a_text_with_a_finding_is_never_remembered_as_clean() -> None:
    found = guard(RegexCheck(pattern="bad"), action="validate")
    for _ in range(2):
        with pytest.raises(Refused):
            found.look_through({"messages": ["bad"]}, texts.said)


def test_the_whole_of_arguments_is_their_json() -> None:
    schema = guard(SchemaCheck(json_schema={"required": ["title"]}), Hook.TOOL_INPUT, "validate")
    assert schema.look_through({"title": "x"}, texts.everything).findings == ()
    with pytest.raises(Refused):
        schema.look_through({}, texts.everything)
    globs = guard(GlobsCheck(deny=('*"a": "b"*',)), Hook.TOOL_INPUT, "validate")
    with pytest.raises(Refused):
        globs.look_through({"a": "b"}, texts.everything)


def test_the_whole_of_an_answer_is_what_it_says_without_its_tool_calls() -> None:
    found = guard(SchemaCheck(json_schema={"type": "object"}), Hook.MODEL_OUTPUT, "validate")
    call = {"type": "tool_use", "id": "1", "name": "x", "input": {"a": "b"}}
    said = {"type": "text", "text": "{}"}
    assert found.look_through({"content": [said, call]}, texts.said).findings == ()
    assert found.look_through({"content": [call]}, texts.said).findings == ()
    with pytest.raises(Refused):
        found.look_through({"content": [{"type": "text", "text": "[]"}, call]}, texts.said)


def test_the_whole_of_a_tool_s_result_is_its_structured_content_where_there_is_one() -> None:
    found = guard(SchemaCheck(json_schema={"type": "object"}), Hook.TOOL_OUTPUT, "validate")
    document = {"content": [{"type": "text", "text": "hi"}], "structuredContent": {}}
    assert found.look_through(document, texts.result).findings == ()
    with pytest.raises(Refused):
        found.look_through({"content": document["content"]}, texts.result)


def test_services_are_asked_once_about_each_text_of_a_document_and_may_replace_it() -> None:
    asked: list[str] = []

    async def service(check: HttpCheck, question: Mapping[str, Any]) -> Any:
        asked.append(question["text"])
        return {"allow": True, "text": question["text"].replace("b", "B")}

    http = HttpCheck(url="https://x.example", hosts=("x.example",), timeout_ms=Millis(1000))
    found = guard(http)
    document = {"messages": ["a", "b", "a"], "model": "b"}
    verdict = asyncio.run(found.check_through(document, service, texts.said))
    assert verdict.value == {"messages": ["a", "B", "a"], "model": "b"}
    assert sorted(asked) == ["a", "b"]
    same = {"messages": ["a"]}
    assert asyncio.run(found.check_through(same, service, texts.said)).value is same
