"""A real provider path: a small model on a real llama.cpp server, through the real gateway.

The model is far too small to be clever, so nothing here judges what it says: what counts is that
real bytes of a real provider become answers in both dialects, real token counts and exact money.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel

from gateway.clock import SystemClock
from gateway.database import Row
from gateway.policy import (
    AgentPolicy,
    Api,
    BudgetRule,
    Grants,
    Limits,
    Model,
    Policy,
    Price,
    Provider,
    Window,
)
from gateway.values import NanoUSD
from runner import queue
from runner.journal import Kind, read
from runner.spec import RunOutcome, RunSpec, StopReason
from tests.gateway.stage import ROOT, Stage, principal
from tests.support.local_model import MODEL, local_model, weights
from tests.support.runner_world import role, run_spec
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

TOKEN = "token-of-run-1"
PRICE = Price(input=NanoUSD(150), output=NanoUSD(600))
GRANTS = Grants(models=("small",), limits=Limits(max_output_tokens=64))
ASKED = "Name three colours."


@pytest.fixture(scope="session")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if weights() is None:
        pytest.skip("the local model is not installed: .ci/setup tests")
    with local_model(tmp_path_factory.mktemp("model") / "server.log") as url:
        yield url


@pytest.fixture
def served(tmp_path: Path, model_url: str) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        agents = {
            name: AgentPolicy(team="platform", roles={"main": GRANTS})
            for name in ("triage", "fixer")
        }
        stage.publish(
            Policy(
                providers={"local": Provider(kind="openai", base_url=model_url)},
                models={"small": Model(provider="local", id=MODEL, price=PRICE)},
                budgets=(BudgetRule(name="day", limit=NanoUSD(10**9), window=Window.DAY),),
            ),
            agents,
        )
        stage.issue(principal(), GRANTS, token=TOKEN)
        yield stage.start()


def paid(row: Row) -> tuple[int, int]:
    """A settled row's token counts, after seeing that they are the model's and the money is
    theirs to the nano-dollar."""
    assert (row["state"], row["target"], row["error"]) == ("settled", "small", None)
    tokens = row["input_tokens"], row["output_tokens"]
    assert 20 < tokens[0] < 2000
    assert 0 < tokens[1] <= 64
    assert row["cost_nano"] == tokens[0] * PRICE.input + tokens[1] * PRICE.output
    assert row["cost_nano"] <= row["reserved_nano"]
    return tokens


def test_the_openai_client_is_answered_by_a_real_model(served: Stage) -> None:
    with openai.OpenAI(base_url=served.ready["url"] + "/v1", api_key=TOKEN) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="small", max_tokens=24, messages=[{"role": "user", "content": ASKED}]
        )
        whole = raw.parse()
        chunks = list(
            client.chat.completions.create(
                model="small",
                max_tokens=24,
                messages=[{"role": "user", "content": ASKED}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert whole.choices[0].message.content
    assert whole.choices[0].finish_reason in ("stop", "length")
    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(texts) > 1, "a stream comes in pieces"
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    first, second = served.rows()
    assert paid(first) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    assert paid(second) == (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)
    assert raw.headers["x-interlock-cost-nano"] == str(first["cost_nano"])


def test_the_anthropic_client_is_answered_by_the_same_model(served: Stage) -> None:
    with anthropic.Anthropic(base_url=served.ready["url"], api_key=TOKEN) as client:
        whole = client.messages.create(
            model="small",
            max_tokens=24,
            system="Be brief.",
            messages=[{"role": "user", "content": ASKED}],
        )
        with client.messages.stream(
            model="small", max_tokens=24, messages=[{"role": "user", "content": ASKED}]
        ) as stream:
            pieces = list(stream.text_stream)
            final = stream.get_final_message()
    assert whole.content[0].type == "text"
    assert whole.content[0].text
    assert whole.stop_reason in ("end_turn", "max_tokens")
    assert len(pieces) > 1, "a stream comes in pieces"
    first, second = served.rows()
    # In this dialect the tokens that came from the prompt's cache are counted apart.
    cached = whole.usage.cache_read_input_tokens or 0
    assert cached == first["cached_tokens"]
    assert paid(first) == (whole.usage.input_tokens + cached, whole.usage.output_tokens)
    assert paid(second)[1] == final.usage.output_tokens


class Colour(BaseModel):
    """A form that the server holds even a model of this size to."""

    name: Literal["red", "green", "blue"]


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_every_client_is_answered_whatever_the_server_is_asked_in(
    tmp_path: Path, model_url: str, api: Api
) -> None:
    held = api == "chat"  # llama.cpp holds its answers to a schema in this API only
    with Stage(tmp_path) as stage:
        server = Provider(kind="openai", base_url=model_url, apis=(api,))
        models = {"small": Model(provider="local", id=MODEL, price=PRICE)}
        ceiling = AgentPolicy(team="platform", roles={"main": GRANTS})
        stage.publish(Policy(providers={"local": server}, models=models), {"triage": ceiling})
        stage.issue(principal(), GRANTS, token=TOKEN)
        url = stage.start().ready["url"]
        asked: Any = [{"role": "user", "content": "Say a colour."}]
        form = {"text_format": Colour} if held else {}
        with openai.OpenAI(base_url=url + "/v1", api_key=TOKEN, max_retries=0) as sdk:
            chat = sdk.chat.completions.create(model="small", messages=asked, max_tokens=24)
            responded = sdk.responses.parse(
                model="small", input=asked, max_output_tokens=40, **form
            )
        with anthropic.Anthropic(base_url=url, api_key=TOKEN, max_retries=0) as claude:
            said = claude.messages.parse(
                model="small",
                messages=asked,
                max_tokens=40,
                **({"output_format": Colour} if held else {}),
            )
            counted = claude.messages.count_tokens(model="small", messages=asked)
        rows = stage.rows()
    if held:
        assert isinstance(responded.output_parsed, Colour)
        assert isinstance(said.parsed_output, Colour)
    assert responded.output_text
    assert responded.status in ("completed", "incomplete")
    assert chat.choices[0].message.content
    assert said.content[0].type == "text"
    assert 3 < counted.input_tokens < 100
    assert [row["state"] for row in rows] == ["settled"] * 3
    assert all(row["error"] is None and row["cost_nano"] > 0 for row in rows)


def test_the_grant_clamps_what_the_model_may_say(served: Stage) -> None:
    answer = served.chat(ASKED, model="small", token=TOKEN, max_tokens=4000)
    assert answer.status == 200
    (row,) = served.rows()
    assert paid(row)[1] <= 64
    assert answer.json()["usage"]["completion_tokens"] == row["output_tokens"]


def test_a_run_of_the_builtin_harness_comes_to_an_end_with_it(served: Stage) -> None:
    served.database.migrate(queue.MIGRATIONS)
    with served.database.transaction() as tx:
        run, _ = queue.enqueue(tx, tiny_run(), now=SystemClock().now())
    command = [sys.executable, "-m", "runner", "--state", str(served.state), "--slots", "1"]
    with (served.directory / "runner.log").open("wb") as log:
        runner = subprocess.Popen(command, cwd=ROOT, stderr=log)
    try:
        finished = "SELECT outcome FROM runs WHERE status = 'finished'"
        row = wait_for("the end of the run", lambda: served.database.one(finished), seconds=120)
    finally:
        runner.terminate()
        runner.wait(timeout=30)
    outcome = RunOutcome.model_validate_json(row["outcome"])
    assert outcome.stop in (
        StopReason.DONE,
        StopReason.REFUSED,
        StopReason.STALLED,
        StopReason.MAX_STEPS,
    ), outcome
    answered = [
        entry
        for entry in read(served.database, run)
        if entry.kind is Kind.MODEL and entry.event == "outcome"
    ]
    assert answered
    rows = served.rows()
    assert [sum(paid(row)) for row in rows] == [entry.tokens for entry in answered]
    assert outcome.tokens == sum(entry.tokens for entry in answered)
    assert outcome.cost_nano == sum(row["cost_nano"] for row in rows) > 0
    assert {row["run"] for row in rows} == {run}


def tiny_run() -> RunSpec:
    """Asks for nothing but the word that the work is done."""
    main = role(
        model="small",
        instructions="Call the tool finish with outcome `ok`.",
        grants=GRANTS,
        tools=("finish",),
        parameters={"temperature": "0"},
    )
    return run_spec(
        roles={"main": main},
        input="There is nothing to do. Call finish.",
        limits=Limits(max_steps=4, max_wall_ms=120_000),
    )
