"""The official SDKs, unchanged, against the real process: Responses, embeddings, JSON output, token
counts."""

from __future__ import annotations

import json
import math
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from gateway.policy import Model, Price, Provider, Rule, Script, When
from gateway.values import NanoUSD
from tests.gateway.stage import SCRIPT, Stage, policy

TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "the weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
CLAUDE_TOOL: Any = {
    "name": "weather",
    "description": "the weather",
    "input_schema": TOOL["parameters"],
}


class Place(BaseModel):
    """What the answers below are held to."""

    city: str
    people: int


@pytest.fixture
def served(stage: Stage) -> Stage:
    rules = (
        Rule(name="json", when=When(user="as JSON"), say='{"city": "Oslo", "people": 709}'),
        *SCRIPT.rules,
    )
    stage.publish(
        policy(providers={"script": Provider(kind="scripted", script=Script(rules=rules))})
    )
    stage.issue()
    return stage.start()


def client(served: Stage) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.ready["url"] + "/v1", api_key="token-of-run-1")


def claude(served: Stage) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=served.ready["url"], api_key="token-of-run-1")


def test_openai_sdk_answers_a_text_with_a_response(served: Stage) -> None:
    with client(served) as sdk:
        said = sdk.responses.create(model="fast", input="hello", instructions="Be kind.")
    assert said.output_text == "Hello to you too, this is a longer text."
    assert (said.status, said.model, said.object) == ("completed", "fast", "response")
    assert said.instructions == "Be kind."
    assert said.usage is not None
    (row,) = served.rows()
    assert (row["input_tokens"], row["output_tokens"]) == (
        said.usage.input_tokens,
        said.usage.output_tokens,
    )


def test_openai_sdk_completes_a_tool_loop_in_responses(served: Stage) -> None:
    with client(served) as sdk:
        asked: list[Any] = [{"role": "user", "content": "weather in Berlin?"}]
        first = sdk.responses.create(model="fast", input=asked, tools=[TOOL])
        message, call = first.output
        assert message.type == "message"
        assert call.type == "function_call"
        assert json.loads(call.arguments) == {"city": "Berlin", "code": "{x: 1}"}
        asked += [item.model_dump(exclude_none=True) for item in first.output]
        asked.append(
            {"type": "function_call_output", "call_id": call.call_id, "output": "sunny in Berlin"}
        )
        second = sdk.responses.create(model="fast", input=asked, tools=[TOOL])
    assert second.output_text == "Fine in Berlin."


def test_openai_sdk_streams_a_response(served: Stage) -> None:
    with (
        client(served) as sdk,
        sdk.responses.stream(model="fast", input="weather in Oslo?", tools=[TOOL]) as stream,
    ):
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    opened = kinds.index("response.output_item.added")
    assert kinds[opened + 1] == "response.content_part.added"
    for needed in (
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ):
        assert needed in kinds
    assert final.output_text == "I look."
    (call,) = [item for item in final.output if item.type == "function_call"]
    assert json.loads(call.arguments)["city"] == "Oslo"


def test_openai_sdk_parses_structured_answers_of_both_apis(served: Stage) -> None:
    with client(served) as sdk:
        chat = sdk.chat.completions.parse(
            model="fast",
            messages=[{"role": "user", "content": "as JSON"}],
            response_format=Place,
        )
        responded = sdk.responses.parse(model="fast", input="as JSON", text_format=Place)
    assert chat.choices[0].message.parsed == Place(city="Oslo", people=709)
    assert responded.output_parsed == Place(city="Oslo", people=709)


def test_anthropic_sdk_parses_a_structured_answer(served: Stage) -> None:
    with claude(served) as sdk:
        said = sdk.messages.parse(
            model="fast",
            max_tokens=100,
            messages=[{"role": "user", "content": "as JSON"}],
            output_format=Place,
        )
    assert said.parsed_output == Place(city="Oslo", people=709)


def test_openai_sdk_embeds_texts(served: Stage) -> None:
    texts = ["red apples", "green apples", "a sentence about something else"]
    with client(served) as sdk:
        found = sdk.embeddings.create(model="fast", input=texts)
        as_floats = sdk.embeddings.create(model="fast", input=texts, encoding_format="float")
        short = sdk.embeddings.create(model="fast", input="red", dimensions=8)
    vectors = [item.embedding for item in found.data]
    assert [item.index for item in found.data] == [0, 1, 2]
    assert vectors == [item.embedding for item in as_floats.data]
    assert len(short.data[0].embedding) == 8
    assert math.isclose(sum(x * x for x in vectors[0]), 1, rel_tol=1e-6)

    def near(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert near(vectors[0], vectors[1]) > near(vectors[0], vectors[2])
    row = served.rows()[0]
    assert row["input_tokens"] == found.usage.prompt_tokens > 0
    assert row["cost_nano"] == found.usage.prompt_tokens * 10


def test_anthropic_sdk_counts_tokens_without_paying(served: Stage) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 40
    with claude(served) as sdk:
        counted = sdk.messages.count_tokens(
            model="fast", messages=[{"role": "user", "content": text}], tools=[CLAUDE_TOOL]
        )
    assert 0.7 < counted.input_tokens / 450 < 1.4, "the text has some 400 tokens, the tool 50"
    assert served.rows() == []


def test_sdks_read_refusals_of_the_newer_endpoints(served: Stage) -> None:
    with client(served) as sdk:
        with pytest.raises(openai.NotFoundError):
            sdk.responses.create(model="nope", input="x")
        with pytest.raises(openai.BadRequestError, match="previous_response_id"):
            sdk.responses.create(model="fast", input="x", previous_response_id="resp_1")
        with pytest.raises(openai.BadRequestError, match="input"):
            sdk.embeddings.create(model="fast", input="")
        with pytest.raises(openai.NotFoundError):
            sdk.embeddings.create(model="nope", input="x")
    with claude(served) as other, pytest.raises(anthropic.NotFoundError):
        other.messages.count_tokens(model="nope", messages=[{"role": "user", "content": "x"}])


def test_a_price_for_embeddings_needs_no_price_for_output(stage: Stage) -> None:
    model = Model(provider="script", id="e", price=Price(input=NanoUSD(3), output=NanoUSD(0)))
    stage.publish(policy(models={"fast": model}))
    stage.issue()
    stage.start()
    answer = stage.post("/v1/embeddings", {"model": "fast", "input": [[1, 2, 3], [4]]})
    assert answer.status == 200
    assert answer.headers["x-interlock-cost-nano"] == str(4 * 3)
