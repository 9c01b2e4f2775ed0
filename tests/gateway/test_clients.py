"""The official SDKs, unchanged, against the real process: both dialects, streaming and not."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from tests.gateway.stage import Stage, policy

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CLAUDE_TOOL: Any = {
    "name": "weather",
    "description": "the weather",
    "input_schema": TOOL["function"]["parameters"],  # type: ignore[index]
}


@pytest.fixture
def served(stage: Stage) -> Stage:
    stage.publish(policy())
    stage.issue()
    return stage.start()


def test_openai_sdk_completes_a_tool_loop(served: Stage) -> None:
    with openai.OpenAI(base_url=served.ready["url"] + "/v1", api_key="token-of-run-1") as client:
        messages: list[Any] = [{"role": "user", "content": "weather in Berlin?"}]
        first = client.chat.completions.create(model="fast", messages=messages, tools=[TOOL])
        assert first.choices[0].finish_reason == "tool_calls"
        message = first.choices[0].message
        assert message.content == "I look."
        (call,) = message.tool_calls
        assert json.loads(call.function.arguments) == {"city": "Berlin", "code": "{x: 1}"}
        messages += [
            message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny in Berlin"},
        ]
        raw = client.chat.completions.with_raw_response.create(
            model="fast", messages=messages, tools=[TOOL]
        )
        second = raw.parse()
        assert second.choices[0].message.content == "Fine in Berlin."
        assert second.model == "fast"
        usage = second.usage
        cost = usage.prompt_tokens * 10 + usage.completion_tokens * 100
        assert raw.headers["x-interlock-cost-nano"] == str(cost)
        assert raw.headers["x-interlock-tokens"] == (
            f"{usage.prompt_tokens},{usage.completion_tokens}"
        )
        assert raw.headers["x-interlock-label"] == "untrusted/internal"
        assert raw.headers["x-interlock-model"] == "fast"
    assert [row["state"] for row in served.rows()] == ["settled", "settled"]


def test_openai_sdk_streams_text_and_tool_calls(served: Stage) -> None:
    with openai.OpenAI(base_url=served.ready["url"] + "/v1", api_key="token-of-run-1") as client:
        chunks = list(
            client.chat.completions.create(
                model="fast",
                messages=[{"role": "user", "content": "weather in Oslo?"}],
                tools=[TOOL],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "I look."
    pieces = [call for delta in deltas for call in delta.tool_calls or ()]
    assert pieces[0].function.name == "weather"
    assert len(pieces) > 2, "arguments come in several pieces"
    assert json.loads("".join(p.function.arguments for p in pieces))["city"] == "Oslo"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "tool_calls"
    assert chunks[-1].usage.completion_tokens > 0


def test_anthropic_sdk_completes_a_tool_loop(served: Stage) -> None:
    with anthropic.Anthropic(base_url=served.ready["url"], api_key="token-of-run-1") as client:
        messages: list[Any] = [{"role": "user", "content": "weather in Rome?"}]
        first = client.messages.create(
            model="fast", max_tokens=200, messages=messages, tools=[CLAUDE_TOOL], system="Be kind."
        )
        assert first.stop_reason == "tool_use"
        text, call = first.content
        assert (text.text, call.name, call.input["city"]) == ("I look.", "weather", "Rome")
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny in Rome"}
        messages += [
            {"role": "assistant", "content": [block.model_dump() for block in first.content]},
            {"role": "user", "content": [result]},
        ]
        second = client.messages.create(
            model="fast", max_tokens=200, messages=messages, tools=[CLAUDE_TOOL]
        )
        assert second.content[0].text == "Fine in Rome."
        assert second.stop_reason == "end_turn"
        assert second.usage.output_tokens == 4


def test_anthropic_sdk_streams_text_and_tool_calls(served: Stage) -> None:
    with (
        anthropic.Anthropic(base_url=served.ready["url"], api_key="token-of-run-1") as client,
        client.messages.stream(
            model="fast",
            max_tokens=200,
            messages=[{"role": "user", "content": "weather in Lima?"}],
            tools=[CLAUDE_TOOL],
        ) as stream,
    ):
        events = [event.type for event in stream]
        final = stream.get_final_message()
    assert events.count("content_block_delta") >= 3
    assert final.content[0].text == "I look."
    assert final.content[1].input == {"city": "Lima", "code": "{x: 1}"}
    assert final.stop_reason == "tool_use"
    assert final.usage.output_tokens > 0


def test_a_tool_that_is_not_offered_is_not_called(served: Stage) -> None:
    said = served.chat("weather in Berlin?").json()["choices"][0]
    assert said["message"]["content"] == "I do not know what to do next."
    assert said["finish_reason"] == "stop"


def test_both_sdks_list_the_granted_models(served: Stage) -> None:
    with openai.OpenAI(base_url=served.ready["url"] + "/v1", api_key="token-of-run-1") as client:
        assert [model.id for model in client.models.list()] == ["fast"]
    with anthropic.Anthropic(base_url=served.ready["url"], api_key="token-of-run-1") as claude:
        assert [model.id for model in claude.models.list()] == ["fast"]


def test_sdks_read_the_gateways_refusals_in_their_own_shape(served: Stage) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    with openai.OpenAI(base_url=served.ready["url"] + "/v1", api_key="token-of-run-1") as client:
        with pytest.raises(openai.NotFoundError) as refused:
            client.chat.completions.create(model="nope", messages=messages)
        assert refused.value.code == "unknown_model"
    with anthropic.Anthropic(base_url=served.ready["url"], api_key="wrong") as claude:
        with pytest.raises(anthropic.AuthenticationError) as denied:
            claude.messages.create(model="fast", max_tokens=20, messages=messages)
        assert denied.value.body["error"]["code"] == "unauthenticated"
