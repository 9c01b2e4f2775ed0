"""SIGKILL in the middle of a call, a restart, and what the same key gets then."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway import access, calls
from gateway.policy import BudgetRule, Model, Price, Provider, Window
from gateway.values import Millis, NanoUSD
from tests.gateway.stage import FakeProvider, Stage, over_socket, policy
from tests.gateway.test_tools import TOOL_KEY, refused, start, text
from tests.support.effects_server import effects, lines

DAILY = BudgetRule(name="daily", limit=NanoUSD(10**9), window=Window.DAY)


def interrupted(stage: Stage, call: Any, reached: Any) -> None:
    """Start a call, kill the gateway once it has reached the other side."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call)
        reached()
        stage.kill()
        assert running.exception(timeout=30) is not None, "the client must lose its connection"


def wait_for_effect(file: Path, count: int) -> None:
    """Until the tool server has written so many effects."""
    import threading

    pause = threading.Event()
    for _ in range(600):
        if len(effects(file)) >= count:
            return
        pause.wait(0.02)
    raise AssertionError("the tool server saw nothing")


def test_a_write_cut_by_sigkill_happens_once_and_is_outcome_unknown(stage: Stage) -> None:
    file = start(stage)
    interrupted(
        stage,
        lambda: stage.tool("write", key="run-1/1/0", text="a", fault="stall"),
        lambda: wait_for_effect(file, 1),
    )
    stage.start(TOOL_KEY=TOOL_KEY)
    for _ in range(2):
        answer = stage.tool("write", key="run-1/1/0", text="a", fault="stall")
        assert refused(answer) == "outcome_unknown"
    assert len(effects(file)) == 1
    assert len([line for line in lines(file) if line["event"] == "request"]) == 1


def test_an_idempotent_tool_cut_by_sigkill_goes_on_and_happens_once(stage: Stage) -> None:
    file = start(stage, "--idempotency", "honour")
    interrupted(
        stage,
        lambda: stage.tool("append", key="run-1/1/0", text="a", fault="stall"),
        lambda: wait_for_effect(file, 1),
    )
    stage.start(TOOL_KEY=TOOL_KEY)
    answer = stage.tool("append", key="run-1/1/0", text="a", fault="stall")
    assert refused(answer) == "provider_error", "the fault is an argument, so it stalls again"
    assert len(effects(file)) == 1
    keys = {line["key"] for line in lines(file) if line["event"] == "request"}
    assert len(keys) == 1


def test_a_settled_call_survives_sigkill(stage: Stage) -> None:
    file = start(stage)
    assert text(stage.tool("write", key="run-1/1/0", text="a")) == "a"
    stage.kill()
    stage.start(TOOL_KEY=TOOL_KEY)
    again = stage.tool("write", key="run-1/1/0", text="a")
    assert text(again) == "a"
    assert again.headers["x-interlock-replayed"] == "1"
    assert len(effects(file)) == 1


def test_a_model_call_cut_by_sigkill_is_charged_and_made_again(
    stage: Stage, fake: FakeProvider
) -> None:
    price = Price(input=NanoUSD(10), output=NanoUSD(100))
    current = policy(
        providers={"p": Provider(kind="openai", base_url=f"{fake.url}/v1")},
        models={"gpt": Model(provider="p", id="g", price=price)},
        budgets=(DAILY,),
    )
    stage.publish(current)
    stage.issue()
    stage.start()
    fake.plan.put(lambda _handler: fake.release.wait(60))
    interrupted(
        stage,
        lambda: stage.chat(model="gpt", key="run-1/1/0"),
        lambda: fake.arrived.get(timeout=30),
    )
    assert [row["state"] for row in stage.rows()] == ["reserved"], "durable before it was sent"
    stage.start()
    (lost,) = stage.rows()
    assert (lost["state"], lost["cost_nano"]) == ("unknown", lost["reserved_nano"])
    said = stage.chat(model="gpt", key="run-1/1/0")
    assert said.json()["choices"][0]["message"]["content"] == "Hi!"
    assert [(row["attempt"], row["state"]) for row in stage.rows()] == [
        (0, "unknown"),
        (1, "settled"),
    ]
    assert int(said.headers["x-interlock-cost-nano"]) == lost["reserved_nano"] + 420
    with stage.database.transaction() as tx:
        assert calls.audit(tx, current.budgets) == {}


def test_run_sockets_are_open_again_after_a_restart(stage: Stage) -> None:
    stage.publish(policy())
    token_hash = stage.issue()
    stage.start()
    control = Path(stage.ready["control"])
    opened = over_socket(control, "PUT", "/runs/run-1", {"token_hash": token_hash}).json()
    stage.kill()
    stage.start()
    body = {"model": "fast", "messages": [{"role": "user", "content": "hello"}]}
    answer = over_socket(Path(opened["socket"]), "POST", "/v1/chat/completions", body)
    assert answer.status == 200


def test_sigterm_lets_running_calls_end_and_leaves_in_good_order(
    stage: Stage, fake: FakeProvider
) -> None:
    from tests.gateway.stage import openai_text

    stage.publish(
        policy(
            providers={"p": Provider(kind="openai", base_url=f"{fake.url}/v1")},
            models={"gpt": Model(provider="p", id="g")},
        )
    )
    stage.issue()
    stage.start()

    def wait(handler: Any) -> None:
        fake.release.wait(60)
        handler.say(200, openai_text("the last words"), "text/event-stream")

    fake.plan.put(wait)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stage.chat, model="gpt")
        fake.arrived.get(timeout=30)
        stage.process.terminate()
        fake.release.set()
        said = running.result(timeout=30)
    assert said.json()["choices"][0]["message"]["content"] == "the last words"
    assert stage.process.wait(timeout=30) == 0
    assert not (stage.state / "gateway.json").exists()
    assert not (stage.state / "gateway-control.sock").exists()


def test_a_drain_that_takes_too_long_ends_in_unknown(stage: Stage, fake: FakeProvider) -> None:
    stage.publish(
        policy(
            providers={"p": Provider(kind="openai", base_url=f"{fake.url}/v1")},
            models={"gpt": Model(provider="p", id="g")},
        )
    )
    stage.issue()
    stage.start("--drain-seconds", "1")
    fake.plan.put(lambda _handler: fake.release.wait(60))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stage.chat, model="gpt")
        fake.arrived.get(timeout=30)
        assert stage.terminate() == 0
        running.exception(timeout=30)
    assert [row["state"] for row in stage.rows()] == ["unknown"]


def test_a_second_gateway_on_the_same_state_refuses_to_start(stage: Stage) -> None:
    import subprocess
    import sys

    stage.publish(policy())
    stage.start()
    second = subprocess.run(
        [sys.executable, "-m", "gateway", "--state", str(stage.state)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 1
    assert "another gateway" in json.loads(second.stderr.splitlines()[-1])["text"]
    assert stage.get("/readyz", token=None).status == 200


def test_an_expired_or_revoked_socket_is_not_opened_again(stage: Stage) -> None:
    stage.publish(policy())
    token_hash = stage.issue()
    stage.start()
    control = Path(stage.ready["control"])
    over_socket(control, "PUT", "/runs/run-1", {"token_hash": token_hash})
    stage.revoke("run-1")
    stage.kill()
    stage.start()
    assert over_socket(Path(stage.ready["control"]), "GET", "/runs").json() == {"runs": []}
    assert access.sockets(stage.database, now=Millis(0)) == []
