"""What is carried over when a client's dialect is not the provider's, pair by pair."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import Provider, TapeEntry
from gateway.providers import anthropic, native, openai, responses, translated, turns
from gateway.providers.asked import Asked
from gateway.providers.conversation import (
    Image,
    Message,
    ModelRequest,
    Output,
    Part,
    Reply,
    Stop,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
    assemble,
)
from gateway.providers.dialects import anthropic as messages_dialect
from gateway.providers.dialects import openai as chat_dialect
from gateway.providers.dialects import responses as responses_dialect
from gateway.providers.tape import digest
from tests.gateway.spoken import (
    CLAUDE,
    ELSEWHERE,
    LOCAL,
    OPENAI,
    all_of,
    answer,
    chunks,
    data_of,
    delta,
    target,
)

PNG = "data:image/png;base64,AAAA"
PDF = "data:application/pdf;base64,JVBERi0="
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 3}},
    "required": ["n"],
    "additionalProperties": False,
}


def to_claude(body: dict[str, Any], where: Any = CLAUDE) -> dict[str, Any]:
    """A Chat client's request as Anthropic gets it."""
    return anthropic.body(chat_dialect.read({"model": "m", **body}), where)


def to_chat(body: dict[str, Any], where: Any = LOCAL) -> dict[str, Any]:
    """An Anthropic client's request as a Chat server gets it."""
    full = {"model": "m", "max_tokens": 100, **body}
    return openai.body(messages_dialect.read(full), where, official=where is OPENAI)


def user(content: Any = "hi") -> dict[str, Any]:
    return {"role": "user", "content": content}


# --- Anthropic client, Chat provider (Claude Code against a local model)


def test_a_conversation_with_tools_reaches_a_chat_server() -> None:
    sent = to_chat(
        {
            "system": [
                {"type": "text", "text": "You are C.", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "Be brief."},
            ],
            "messages": [
                user([{"type": "text", "text": "look"}]),
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "sig"},
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"a": 1}},
                        {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}},
                    ],
                },
                user(
                    [
                        {
                            "type": "tool_result",
                            "tool_use_id": "toolu_1",
                            "content": [
                                {"type": "text", "text": "seen"},
                                {
                                    "type": "image",
                                    "source": {
                                        "type": "base64",
                                        "media_type": "image/png",
                                        "data": "AAAA",
                                    },
                                },
                            ],
                        },
                        {
                            "type": "tool_result",
                            "tool_use_id": "toolu_2",
                            "content": "no such file",
                            "is_error": True,
                        },
                        {"type": "text", "text": "and?"},
                    ]
                ),
            ],
            "tools": [{"name": "look", "input_schema": {"properties": {}}}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            "stop_sequences": ["END"],
            "top_k": 5,
            "metadata": {"user_id": "u1"},
        }
    )
    system, first, turn, result, failed, last = sent["messages"]
    assert system == {"role": "system", "content": "You are C.\n\nBe brief."}
    assert first == {"role": "user", "content": "look"}
    assert turn["content"] == "I look."
    assert [call["id"] for call in turn["tool_calls"]] == ["toolu_1", "toolu_2"]
    assert json.loads(turn["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
    assert result == {"role": "tool", "tool_call_id": "toolu_1", "content": "seen"}
    assert failed["content"] == "Error: no such file", "Chat has no field for it"
    image, said = last["content"]
    assert image == {"type": "image_url", "image_url": {"url": PNG}}, "a tool's message is text"
    assert said["text"] == "and?"
    assert sent["tools"][0]["function"]["parameters"]["type"] == "object"
    assert (sent["tool_choice"], sent["parallel_tool_calls"]) == ("required", False)
    assert (sent["stop"], sent["top_k"], sent["user"]) == (["END"], 5, "u1")
    assert sent["max_tokens"] == 100
    assert "cache_control" not in json.dumps(sent)
    assert "sig" not in json.dumps(sent["messages"])


def test_openai_itself_gets_its_own_names_and_no_strange_fields() -> None:
    sent = to_chat({"messages": [user()], "top_k": 5, "stop_sequences": list("abcde")}, OPENAI)
    assert sent["max_completion_tokens"] == 100
    assert "max_tokens" not in sent
    assert "top_k" not in sent
    assert sent["stop"] == list("abcd"), "it takes four"


def test_an_output_schema_becomes_a_response_format() -> None:
    config = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
    sent = to_chat({"messages": [user()], **config})["response_format"]["json_schema"]
    assert (sent["schema"], sent["strict"]) == (SCHEMA, True)
    loose = {"type": "object", "properties": {"n": {}}}
    config = {"output_config": {"format": {"type": "json_schema", "schema": loose}}}
    sent = to_chat({"messages": [user()], **config})["response_format"]["json_schema"]
    assert "strict" not in sent, "OpenAI would refuse this schema in strict mode"


def test_a_pdf_reaches_either_side() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    sent = to_chat({"messages": [user([{"type": "document", "source": source}])]})
    file = {"filename": "document.pdf", "file_data": PDF}
    assert sent["messages"][0]["content"] == [{"type": "file", "file": file}]
    back = to_claude({"messages": [user([{"type": "file", "file": {"file_data": PDF}}])]})
    assert back["messages"][0]["content"][0]["source"] == source


# --- Chat client, Anthropic provider


def test_system_and_developer_messages_become_the_system_wherever_they_stand() -> None:
    sent = to_claude(
        {
            "messages": [
                {"role": "system", "content": "S"},
                user("a"),
                {"role": "developer", "content": "D"},
                user("b"),
            ]
        }
    )
    assert sent["system"] == "S\n\nD"
    assert [len(m["content"]) for m in sent["messages"]] == [2], "neighbours are one turn"


@pytest.mark.parametrize(
    "listed",
    [
        [{"role": "system", "content": "only a system message"}],
        [{"role": "assistant", "content": "I begin."}],
        [user(), {"role": "assistant", "content": "and so I"}],
        [user(""), user("  "), {"role": "assistant", "content": ""}],
        [user(), {"role": "tool", "tool_call_id": "never-asked", "content": "R"}],
        [
            user(),
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c:1", "type": "function", "function": {"name": "f", "arguments": "{"}}
                ],
            },
            user("instead of a result"),
        ],
    ],
)
def test_what_anthropic_would_refuse_is_made_valid(listed: list[dict[str, Any]]) -> None:
    sent = to_claude({"messages": listed})
    roles = [message["role"] for message in sent["messages"]]
    assert roles[0] == roles[-1] == "user"
    assert all(a != b for a, b in pairwise(roles))
    for message in sent["messages"]:
        assert message["content"]
        for part in message["content"]:
            assert part.get("text", "x").strip()
            assert set(part.get("id", "") + part.get("tool_use_id", "")) <= set("c_1")


def test_a_call_without_its_result_is_told_that_there_is_none() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    sent = to_claude(
        {"messages": [user(), {"role": "assistant", "tool_calls": [call]}, user("go on")]}
    )
    result, said = sent["messages"][2]["content"]
    assert result["tool_use_id"] == "c1"
    assert result["is_error"] is True
    assert said["text"] == "go on"


def test_numbers_and_stops_are_kept_within_what_anthropic_accepts() -> None:
    sent = to_claude(
        {"messages": [user()], "temperature": 1.7, "top_p": 0.5, "stop": ["\n", "END"], "seed": 1}
    )
    assert sent["temperature"] == 1.0
    assert "top_p" not in sent, "its newer models take one of both"
    assert sent["stop_sequences"] == ["END"]
    assert "seed" not in sent
    assert sent["max_tokens"] == 4096, "Anthropic demands one: the model's ceiling"


def test_cache_control_of_a_chat_client_reaches_anthropic_only() -> None:
    cache = {"type": "ephemeral"}
    body = {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "S", "cache_control": cache}]},
            user([{"type": "text", "text": "long", "cache_control": cache}]),
        ],
        "tools": [{"type": "function", "function": {"name": "f"}, "cache_control": cache}],
    }
    sent = to_claude(body)
    assert sent["system"] == [{"type": "text", "text": "S", "cache_control": cache}]
    assert sent["messages"][0]["content"][0]["cache_control"] == cache
    assert sent["tools"][0]["cache_control"] == cache
    other = openai.body(chat_dialect.read({"model": "m", **body}), LOCAL, official=False)
    assert "cache_control" not in json.dumps(other)


def json_schema(**more: Any) -> dict[str, Any]:
    about = {"name": "n", "schema": SCHEMA, **more}
    return {"messages": [user()], "response_format": {"type": "json_schema", "json_schema": about}}


def test_a_response_format_becomes_anthropics_output_config() -> None:
    sent = to_claude(json_schema())["output_config"]["format"]
    assert sent["type"] == "json_schema"
    assert sent["schema"]["properties"]["n"] == {
        "type": "integer",
        "description": '({"minimum": 3})',
    }, "a constraint that it refuses is told in words"
    assert sent["schema"]["additionalProperties"] is False


def test_where_the_api_has_no_schemas_a_forced_tool_gives_the_answer() -> None:
    request = chat_dialect.read({"model": "m", **json_schema()})
    sent = anthropic.body(request, ELSEWHERE)
    assert sent["tool_choice"] == {"type": "tool", "name": "answer"}
    assert sent["tools"][0]["input_schema"] == SCHEMA
    block = {"type": "tool_use", "id": "t", "name": "answer", "input": {}}
    piece = {"type": "input_json_delta", "partial_json": '{"n": 4}'}
    said = chunks(
        {"type": "message_start", "message": {"usage": {"input_tokens": 5}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": piece},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use"},
            "usage": {"output_tokens": 2},
        },
        {"type": "message_stop"},
    )
    reply = assemble(all_of(anthropic.events(answer(said), answer_tool=True)))
    assert (reply.text, reply.tools, reply.stop) == ('{"n": 4}', (), Stop.END)


def test_with_other_tools_the_schema_is_an_instruction() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    sent = to_claude({**json_schema(), "tools": [tool]}, ELSEWHERE)
    assert [t["name"] for t in sent["tools"]] == ["f"]
    assert '"minimum": 3' in sent["system"]
    sent = to_claude({"messages": [user()], "response_format": {"type": "json_object"}})
    assert "one JSON object" in sent["system"]


def test_the_policys_parameters_are_put_over_the_callers() -> None:
    where = target(
        Provider(kind="anthropic"),
        parameters={"temperature": None, "top_k": "7", "thinking": {"type": "adaptive"}},
    )
    sent = to_claude({"messages": [user()], "temperature": 0.3}, where)
    assert "temperature" not in sent, "some models refuse it: null takes it away"
    assert sent["thinking"] == {"type": "adaptive"}
    assert "top_k" not in sent, "thinking does not go together with it"
    where = target(
        Provider(kind="openai"), parameters={"temperature": "0.25", "service_tier": "flex"}
    )
    sent = openai.body(ModelRequest("m", ()), where, official=True)
    assert (sent["temperature"], sent["service_tier"]) == (0.25, "flex")


def test_thinking_is_left_out_where_the_reasoning_before_a_call_is_lost() -> None:
    where = target(Provider(kind="anthropic"), parameters={"thinking": {"type": "adaptive"}})
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    listed = [
        user(),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "R"},
    ]
    assert "thinking" not in to_claude({"messages": listed}, where)
    assert "thinking" in to_claude({"messages": [user()]}, where)


# --- Responses client (Codex), both kinds of provider

ITEMS: list[dict[str, Any]] = [
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "D"}]},
    {"role": "user", "content": [{"type": "input_text", "text": "fix it"}]},
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "I think"}],
        "encrypted_content": "anthropic:SIG",
    },
    {"type": "function_call", "call_id": "c1", "name": "shell", "arguments": '{"cmd": "ls"}'},
    {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "*** Begin"},
    {"type": "function_call_output", "call_id": "c1", "output": "a.py"},
    {
        "type": "custom_tool_call_output",
        "call_id": "c2",
        "output": [{"type": "input_text", "text": "ok"}],
    },
]
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "shell", "parameters": {"type": "object"}, "strict": False},
    {"type": "custom", "name": "patch", "description": "Edits.", "format": {"type": "text"}},
    {"type": "web_search"},
    {
        "type": "namespace",
        "name": "git",
        "description": "",
        "tools": [{"type": "function", "name": "log", "parameters": {"type": "object"}}],
    },
]


def codex(**more: Any) -> ModelRequest:
    return responses_dialect.read(
        {"model": "m", "instructions": "You are Codex.", "input": ITEMS, "tools": TOOLS, **more}
    )


def test_a_responses_conversation_reaches_a_chat_server() -> None:
    sent = openai.body(codex(), LOCAL, official=False)
    system, asked, turn, first, second = sent["messages"]
    assert system["content"] == "You are Codex.\n\nD"
    assert asked["content"] == "fix it"
    assert [call["function"]["name"] for call in turn["tool_calls"]] == ["shell", "patch"]
    assert json.loads(turn["tool_calls"][1]["function"]["arguments"]) == {"input": "*** Begin"}
    assert (first["content"], second["content"]) == ("a.py", "ok")
    assert [t["function"]["name"] for t in sent["tools"]] == ["shell", "patch", "git__log"]
    assert "SIG" not in json.dumps(sent)


def test_anthropics_reasoning_comes_back_to_it_through_responses() -> None:
    sent = anthropic.body(codex(), CLAUDE)
    thought, shell, patch = sent["messages"][1]["content"]
    assert thought == {"type": "thinking", "thinking": "I think", "signature": "SIG"}
    assert (shell["name"], patch["input"]) == ("shell", {"input": "*** Begin"})
    foreign = [dict(ITEMS[2], encrypted_content="gAAAA-openai"), *ITEMS[3:]]
    sent = anthropic.body(codex(input=[ITEMS[1], *foreign]), CLAUDE)
    assert sent["messages"][1]["content"][0]["type"] == "tool_use"


def test_custom_and_grouped_tools_are_written_back_as_what_they_were() -> None:
    said = chunks(
        delta(reasoning_content="let me see"),
        delta(content="Patching."),
        delta(
            tool_calls=[
                {"index": 0, "id": "p", "function": {"name": "patch", "arguments": '{"input"'}}
            ]
        ),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ': "*** x"}'}}]),
        delta(
            tool_calls=[
                {"index": 1, "id": "g", "function": {"name": "git__log", "arguments": "{}"}}
            ]
        ),
        delta("tool_calls"),
    )
    events = all_of(openai.events(answer(said)))
    request = codex()
    frame: dict[str, Any] = {"model": "m", "identity": "1", "seconds": 1, "request": request}
    whole = responses_dialect.answer(assemble(events), **frame)
    writer = responses_dialect.Writer(**frame, with_usage=False)
    streamed = data_of(b"".join(map(writer.write, events)) + writer.end())
    for output in (whole["output"], streamed[-1]["response"]["output"]):
        thought, message, patch, log = output
        assert thought["summary"][0]["text"] == "let me see"
        assert message["content"][0]["text"] == "Patching."
        assert (patch["type"], patch["input"]) == ("custom_tool_call", "*** x")
        assert (log["name"], log["namespace"]) == ("log", "git")
    closed = [e["item"]["id"] for e in streamed if e["type"] == "response.output_item.done"]
    opened = [e["item"]["id"] for e in streamed if e["type"] == "response.output_item.added"]
    assert opened == closed
    assert len(set(opened)) == 4


def test_a_cut_answer_is_an_incomplete_response() -> None:
    events = all_of(openai.events(answer(chunks(delta("length", content="half")))))
    writer = responses_dialect.Writer(model="m", identity="1", seconds=1, with_usage=False)
    last = data_of(b"".join(map(writer.write, events)))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_tools_that_only_the_provider_can_run_are_left_out_or_refused() -> None:
    assert codex().untranslatable() == ()
    search = codex(tools=[{"type": "web_search"}])
    assert search.untranslatable() == ("tool 'web_search'",)
    stored = codex(previous_response_id="resp_1")
    assert stored.untranslatable() == ("`previous_response_id`",)
    unknown = codex(input=[{"type": "computer_call", "id": "x"}])
    assert unknown.untranslatable() == ("content of type 'computer_call'",)


# --- Anthropic client, a model that has Responses only


def test_a_conversation_reaches_a_provider_that_has_only_responses() -> None:
    thought = Thinking("hm", "openai:rs_1:SECRET")
    talk = (
        Message("user", (Text("look"), Image(PNG))),
        Message("assistant", (thought, Text("I look."), ToolUse("toolu_1", "look", '{"a": 1}'))),
        Message("user", (ToolResult("toolu_1", "seen"), Text("and?"))),
    )
    request = ModelRequest(
        "m", talk, system="S", max_output_tokens=5, output=Output(SCHEMA), effort="low"
    )
    sent = responses.body(request, OPENAI)
    assert [item["type"] for item in sent["input"]] == [
        "message",
        "reasoning",
        "message",
        "function_call",
        "function_call_output",
        "message",
    ]
    assert sent["input"][1]["encrypted_content"] == "SECRET"
    assert sent["input"][1]["id"] == "rs_1"
    assert sent["input"][0]["content"][1]["image_url"] == PNG
    assert sent["store"] is False, "nothing is kept there"
    assert sent["max_output_tokens"] == 16, "it refuses less"
    assert sent["text"]["format"]["strict"] is True
    assert sent["reasoning"] == {"effort": "low"}


def test_reasoning_of_responses_survives_an_anthropic_client() -> None:
    reply = Reply("x", (), Stop.END, None, (Thinking("hm", "openai:rs_1:SECRET"),))
    content = messages_dialect.answer(reply, model="m", identity="1", seconds=1)["content"]
    body = {"model": "m", "messages": [user(), {"role": "assistant", "content": content}]}
    thought = responses.body(messages_dialect.read(body), OPENAI)["input"][1]
    assert (thought["id"], thought["encrypted_content"]) == ("rs_1", "SECRET")
    assert "SECRET" not in json.dumps(anthropic.body(messages_dialect.read(body), CLAUDE))


def test_reasoning_of_one_provider_is_not_forwarded_to_another() -> None:
    mine = {"type": "thinking", "thinking": "a", "signature": "sig"}
    other = {"type": "thinking", "thinking": "b", "signature": "interlock:chat:"}
    text = {"type": "text", "text": "x"}
    talk = [
        user(),
        {"role": "assistant", "content": [mine, other, text]},
        {"role": "assistant", "content": [other]},
    ]
    assert messages_dialect.without_foreign(talk) == [
        user(),
        {"role": "assistant", "content": [mine, text]},
    ]
    items = [ITEMS[2], dict(ITEMS[2], encrypted_content="gAAAA")]
    assert responses_dialect.without_foreign(items) == items[1:]
    asked = Asked.read("messages", json.dumps({"model": "m", "messages": talk}).encode())
    sent = native.outgoing(
        asked, model="c", output_tokens=9, parameters={"top_k": "3"}, plain_limit=False
    )
    document = json.loads(sent)
    assert "interlock:" not in sent.decode()
    assert document["messages"][1]["content"][0] == mine
    assert document["top_k"] == 3


def test_tool_names_that_a_provider_would_refuse_come_back_as_they_were() -> None:
    long = "mcp__" + "very_long_server_name" * 4 + "__look"
    dotted = "server.look"
    request = ModelRequest(
        "m",
        (Message("user", (Text("hi"),)), Message("assistant", (ToolUse("c", long, "{}"),))),
        tools=(Tool(long, "", {}), Tool(dotted, "", {}), Tool("plain", "", {})),
        tool_choice=f"name:{long}",
    )
    plain, names = turns.plain_names(request)
    sent = openai.body(plain, OPENAI, official=True)
    told = [tool["function"]["name"] for tool in sent["tools"]]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in told)
    assert [names.get(name, name) for name in told] == [long, dotted, "plain"]
    assert sent["tool_choice"]["function"]["name"] == told[0]
    assert sent["messages"][1]["tool_calls"][0]["function"]["name"] == told[0]
    said = chunks(
        delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": told[1]}}]),
        delta("tool_calls"),
    )
    entry = TapeEntry(
        request=digest("chat", openai.body(plain, LOCAL, official=False)),
        events=tuple(line[6:] for line in said.decode().split("\n\n") if line),
    )
    tape = replace(LOCAL, provider=Provider(kind="cassette", apis=("chat",), tape=(entry,)))
    reply = assemble(all_of(translated.events(None, tape, request)))  # type: ignore[arg-type]
    assert reply.tools[0].name == dotted


# --- conversations that no client should send

TEXTS = st.sampled_from(["", " ", "a", "b"])
IDS = st.sampled_from(["1", "2", "3"])
PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, TEXTS),
    st.builds(Thinking, TEXTS, st.sampled_from(["", "anthropic:s", "chat:"])),
    st.builds(ToolUse, IDS, st.just("f"), st.just("{}")),
    st.builds(ToolResult, IDS, TEXTS),
)


def said_by(role: str) -> st.SearchStrategy[Message]:
    allowed = ToolResult if role == "assistant" else (ToolUse, Thinking)
    parts = st.lists(PARTS.filter(lambda part: not isinstance(part, allowed)), max_size=4)
    return st.builds(Message, st.just(role), parts.map(tuple))


TALK = st.lists(st.one_of(said_by("user"), said_by("assistant")), max_size=7)


@given(TALK)
def test_any_conversation_becomes_one_that_anthropic_accepts(talk: list[Message]) -> None:
    found = turns.alternating(talk)
    assert [message.role for message in found] == ["user", "assistant"] * (len(found) // 2) + [
        "user"
    ]
    for before, message in zip([None, *found], found, strict=False):
        assert message.parts
        assert not any(isinstance(p, Text) and not p.text.strip() for p in message.parts)
        calls = [p.id for p in before.parts if isinstance(p, ToolUse)] if before else []
        results = [p.id for p in message.parts if isinstance(p, ToolResult)]
        assert sorted(results) == sorted(calls), "each call has its result, at once"
        first = [isinstance(part, ToolResult) for part in message.parts]
        assert first == sorted(first, reverse=True), "results come first"
    assert turns.alternating(found) == found


@given(TALK)
def test_nothing_that_was_said_is_lost(talk: list[Message]) -> None:
    def said(messages: Any) -> str:
        texts = (p.text for m in messages for p in m.parts if isinstance(p, Text | ToolResult))
        return "".join(sorted("".join(t for t in texts if t.strip())))

    kept = said(turns.well_formed(talk))
    for letter in "ab":
        assert kept.count(letter) >= said(talk).count(letter)
