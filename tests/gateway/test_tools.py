"""Tools through /mcp: grants, constraints, effect keys, at most once, evals that touch nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.policy import (
    Access,
    AgentPolicy,
    Policy,
    SecretRef,
    ToolClass,
    ToolGrant,
    ToolServer,
)
from gateway.values import EffectKey, Purpose, Sensitivity
from tests.gateway.stage import TOOL_KEY, Stage, ceiling, grants, policy, principal
from tests.support.effects_server import effects, lines

READ = ToolClass(access=(Access.READ,), trusted=True, sensitivity=Sensitivity.SECRET)
TOOLS = {
    "write": ToolClass(access=(Access.WRITE,), description="writes"),
    "append": ToolClass(access=(Access.WRITE,), idempotent=True),
    "read": READ,
    "whoami": READ,
}


def with_tools(url: str, **changes: Any) -> Policy:
    server = ToolServer(url=url, key=SecretRef(env="TOOL_KEY"), tools=TOOLS, timeout_seconds=2)
    return policy(servers={"effects": server}, **changes)


def start(stage: Stage, *arguments: str, allowed: AgentPolicy | None = None) -> Path:
    url, file = stage.effects_server(*arguments)
    stage.publish(with_tools(url), {"triage": allowed or ceiling()})
    stage.issue()
    stage.start(TOOL_KEY=TOOL_KEY)
    return file


def text(answer: Any) -> str:
    return str(answer.json()["result"]["content"][0]["text"])


def refused(answer: Any) -> str:
    assert answer.status == 200
    return str(answer.json()["error"]["data"]["code"])


@pytest.mark.parametrize("mode", [(), ("--sse",)])
def test_a_write_happens_once_per_key_and_carries_its_effect_key(
    stage: Stage, mode: tuple[str, ...]
) -> None:
    file = start(stage, *mode)
    first = stage.tool("write", key="run-1/1/0", text="a")
    again = stage.tool("write", key="run-1/1/0", text="a")
    assert text(first) == text(again) == "a"
    assert again.headers["x-interlock-replayed"] == "1"
    stage.tool("write", key="run-1/2/0", text="b")
    who = principal()
    keys = [str(EffectKey(who.agent, who.occurrence, "effects.write", n)) for n in (0, 1)]
    assert [effect["key"] for effect in effects(file)] == keys
    requests = [line for line in lines(file) if line["event"] == "request"]
    assert [line["meta"] for line in requests] == keys
    assert first.headers["x-interlock-effect-key"] == keys[0]
    assert len([line for line in lines(file) if line["event"] == "initialize"]) == 1


def test_canary_and_stable_cannot_do_the_same_thing_twice(stage: Stage) -> None:
    file = start(stage)
    stage.issue(principal("run-2", release="rel-000000000002"), token="two")
    stage.tool("write", key="run-1/1/0", text="a")
    other = stage.tool("write", key="run-2/1/0", text="different words", token="two")
    assert text(other) == "a"
    assert other.headers["x-interlock-replayed"] == "1"
    assert len(effects(file)) == 1


def test_reads_have_no_effect_key_and_carry_their_label(stage: Stage) -> None:
    file = start(stage)
    answer = stage.tool("read", text="hi")
    assert answer.headers["x-interlock-effect-key"] is None
    assert answer.headers["x-interlock-label"] == "trusted/secret"
    assert answer.headers["x-interlock-model"] == "effects.read"
    assert stage.tool("write", text="a").headers["x-interlock-label"] == "untrusted/internal"
    assert [line["key"] for line in lines(file) if line.get("tool") == "read"] == [None, None][:1]
    said = stage.chat()
    assert said.headers["x-interlock-label"] == "untrusted/secret", "the run has read a secret"


def test_the_tools_secret_is_sent_and_scrubbed_from_what_comes_back(stage: Stage) -> None:
    start(stage)
    said = text(stage.tool("whoami"))
    assert "Bearer [redacted]" in said
    stage.terminate()
    for path in (stage.log, *stage.state.glob("interlock.sqlite*")):
        assert TOOL_KEY.encode() not in path.read_bytes()


def test_only_granted_tools_are_listed_and_callable(stage: Stage) -> None:
    file = start(stage, allowed=ceiling(tools={"effects.write": ToolGrant()}))
    body = {"jsonrpc": "2.0", "id": 7, "method": "tools/list"}
    tool, reader = stage.post("/mcp", body).json()["result"]["tools"]
    assert reader["name"] == "interlock__read_artifact"
    assert tool["name"] == "effects__write"
    assert tool["description"] == "writes"
    assert tool["annotations"]["readOnlyHint"] is False
    assert refused(stage.tool("read")) == "not_granted"
    unknown = {"name": "nowhere__x", "arguments": {}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": unknown}
    assert refused(stage.post("/mcp", call)) == "unknown_tool"
    assert [line for line in lines(file) if line["event"] == "request"] == []


def test_arguments_must_match_the_grants_globs(stage: Stage) -> None:
    granted = {"effects.write": ToolGrant(args={"text": ("northwind/*", "ok")})}
    file = start(stage, allowed=ceiling(tools=granted))
    assert text(stage.tool("write", text="northwind/api")) == "northwind/api"
    assert text(stage.tool("write", text="ok")) == "ok"
    for bad in ({"text": "evil/api"}, {"text": ["ok"]}, {}):
        assert refused(stage.tool("write", **bad)) == "not_granted"
    assert len(effects(file)) == 2


def test_a_wider_glob_of_one_side_never_widens_the_other(stage: Stage) -> None:
    def allow(*globs: str) -> Any:
        return grants(tools={"effects.write": ToolGrant(args={"text": globs})})

    wide = AgentPolicy(team="platform", roles={"main": allow("*")})
    file = start(stage, allowed=wide)
    stage.issue(principal("run-2"), allow("?"), token="narrow")
    assert refused(stage.tool("write", token="narrow", text="ab")) == "not_granted"
    assert text(stage.tool("write", token="narrow", text="a")) == "a"
    assert len(effects(file)) == 1


def test_destructive_and_approval_bound_tools_are_closed(stage: Stage) -> None:
    file = start(stage, allowed=ceiling(tools={"effects.read": ToolGrant(approval=True)}))
    assert refused(stage.tool("read")) == "approval_required"
    stage.publish(with_tools("http://127.0.0.1:9/mcp", destructive=("effects.wr*",)))
    answer = stage.tool("write", text="a")
    assert refused(answer) == "approval_required"
    assert "destructive" in answer.json()["error"]["message"]
    assert [line for line in lines(file) if line["event"] == "request"] == []


def test_a_lost_answer_of_a_write_is_outcome_unknown_for_ever(stage: Stage) -> None:
    file = start(stage)
    for _ in range(2):
        answer = stage.tool("write", key="run-1/1/0", text="a", fault="drop")
        assert refused(answer) == "outcome_unknown"
    assert len(effects(file)) == 1
    assert [row["state"] for row in stage.rows()] == ["unknown"]


def test_a_stalled_write_is_given_up_as_unknown(stage: Stage) -> None:
    file = start(stage)
    assert refused(stage.tool("write", key="run-1/1/0", fault="stall")) == "outcome_unknown"
    assert len(effects(file)) == 1


def test_an_idempotent_tool_is_sent_again_under_the_same_effect_key(stage: Stage) -> None:
    file = start(stage, "--idempotency", "honour")
    arguments = {"text": "a", "fault": "drop"}
    for _ in range(2):
        answer = stage.tool("append", key="run-1/1/0", **arguments)
        assert refused(answer) == "provider_error"
    assert len(effects(file)) == 1, "the server knew the key"
    requests = [line["key"] for line in lines(file) if line["event"] == "request"]
    assert len(requests) == 2
    assert len(set(requests)) == 1
    assert [row["attempt"] for row in stage.rows()] == [0, 1]


@pytest.mark.parametrize(
    ("fault", "code", "state"),
    [
        ("503", "provider_error", "released"),
        ("429", "provider_busy", "released"),
        ("400", "provider_error", "released"),
        ("500", "outcome_unknown", "unknown"),
    ],
)
def test_error_statuses_of_a_tool_server_release_only_what_surely_did_nothing(
    stage: Stage, fault: str, code: str, state: str
) -> None:
    file = start(stage)
    assert refused(stage.tool("write", fault=fault)) == code
    assert [row["state"] for row in stage.rows()] == [state]
    assert effects(file) == []


def test_a_tools_own_error_is_its_result(stage: Stage) -> None:
    start(stage)
    answer = stage.tool("write", key="run-1/1/0", text="no", fault="error")
    assert answer.json()["result"]["isError"] is True
    assert stage.rows()[0]["state"] == "settled"


def test_a_forgotten_session_is_opened_again_before_anything_happens(stage: Stage) -> None:
    file = start(stage)
    stage.tool("read", text="warm up")
    assert refused(stage.tool("write", fault="forget")) == "provider_error"
    assert text(stage.tool("write", text="x")) == "x"
    assert len(effects(file)) == 1


def test_a_server_that_is_not_there_costs_nothing(stage: Stage) -> None:
    stage.publish(with_tools("http://127.0.0.1:9/mcp"))
    stage.issue()
    stage.start(TOOL_KEY=TOOL_KEY)
    assert refused(stage.tool("write", key="run-1/1/0")) == "provider_error"
    assert stage.rows() == [], "it could not be looked at, so nothing was begun"


def test_an_eval_sees_only_its_recorded_world(stage: Stage) -> None:
    file = start(stage)
    recorded = [
        {"tool": "effects.write", "args": {"text": "a*"}, "result": "recorded!", "error": False},
        {"tool": "effects.*", "args": {}, "result": "broken", "error": True},
    ]
    who = principal("run-e", purpose=Purpose.EVAL, occurrence="eval:1")
    stage.issue(who, recorded=recorded, token="eval")
    assert text(stage.tool("write", token="eval", text="abc")) == "recorded!"
    other = stage.tool("write", token="eval", text="zzz").json()["result"]
    assert (other["isError"], other["content"][0]["text"]) == (True, "broken")
    bare = principal("run-n", purpose=Purpose.EVAL, occurrence="eval:2")
    stage.issue(bare, token="bare")
    nothing = stage.tool("read", token="bare").json()["result"]
    assert nothing["isError"] is True
    assert "no recorded answer" in nothing["content"][0]["text"]
    assert [line for line in lines(file) if line["event"] == "request"] == []


def test_an_eval_tries_a_tool_nobody_allowed_yet_and_reaches_no_server(stage: Stage) -> None:
    file = start(stage, allowed=ceiling(tools={}))
    recorded = [{"tool": "effects.write", "args": {}, "result": "recorded!", "error": False}]
    who = principal("run-e", purpose=Purpose.EVAL, occurrence="eval:1")
    stage.issue(who, recorded=recorded, token="eval")
    assert text(stage.tool("write", token="eval", text="abc")) == "recorded!"
    assert stage.tool("read", token="eval").json()["result"]["isError"] is True
    assert refused(stage.tool("write")) == "not_granted"
    bare = principal("run-n", purpose=Purpose.EVAL, occurrence="eval:2")
    stage.issue(bare, token="bare")
    assert refused(stage.tool("write", token="bare")) == "not_granted"
    assert [line for line in lines(file) if line["event"] == "request"] == []


def test_the_protocols_small_talk(stage: Stage) -> None:
    start(stage)

    def ask(method: str, **params: Any) -> Any:
        return stage.post(
            "/mcp", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        ).json()

    assert ask("initialize", protocolVersion="2025-03-26")["result"]["protocolVersion"] == (
        "2025-03-26"
    )
    assert ask("initialize", protocolVersion="1999")["result"]["protocolVersion"] == "2025-11-25"
    assert ask("ping")["result"] == {}
    assert ask("prompts/list")["error"]["code"] == -32601
    assert ask("tools/call", name=3)["error"]["code"] == -32602
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert stage.post("/mcp", note).status == 202
    assert stage.post("/mcp", b"[]").status == 400
    assert stage.get("/mcp").status == 405
