"""A real gateway process against hostile clients on real sockets: what they do costs nobody but
themselves, every call of theirs is settled, and what they hear tells no secret."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from gateway import access
from gateway.policy import Grants, Model, Price, Provider, ToolGrant
from gateway.values import NanoUSD
from tests.gateway.stage import SCRIPT, FakeProvider, Stage, over_socket, policy, principal, sse
from tests.gateway.wire import chat, post, raw, responses

PRICE = Price(input=NanoUSD(10), output=NanoUSD(100))


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: FakeProvider) -> Iterator[Stage]:
    """One process for all tests of this module."""
    with Stage(tmp_path_factory.mktemp("hostile")) as stage:
        stage.publish(
            policy(
                providers={
                    "script": Provider(kind="scripted", script=SCRIPT),
                    "fake": Provider(kind="openai", base_url=f"{upstream.url}/v1"),
                },
                models={
                    "fast": Model(provider="script", id="scripted", price=PRICE),
                    "gpt": Model(provider="fake", id="gpt", price=PRICE),
                },
            )
        )
        stage.issue()
        yield stage.start()


def address(stage: Stage) -> tuple[str, int]:
    return (stage.ready["host"], stage.ready["port"])


def until(condition: Any, why: str) -> None:
    """Look until it is so; the pause only spares the machine."""
    pause = Event()
    for _ in range(1500):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError(why)


def open_rows(stage: Stage) -> list[str]:
    return [row["step"] for row in stage.rows() if row["state"] == "reserved"]


def test_garbage_is_refused_and_the_next_client_served(served: Stage) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client
        b"GET / HTTP/1.1\nHost: x\n\n",
        post("/v1/chat/completions", b"{}", "Transfer-Encoding: chunked"),
        post("/v1/chat/completions", b"{}", "Authorization: Bearer a", "authorization: Bearer b"),
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ):
        (said,) = responses(raw(address(served), data, half_close=True))
        assert (said.status, said.code) == (400, "invalid_request")
    assert served.chat().status == 200


def test_a_body_that_is_too_large_is_refused_and_its_client_hears_it(served: Stage) -> None:
    head = b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
    with socket.create_connection(address(served), timeout=30) as line:
        line.sendall(head)
        with contextlib.suppress(OSError):
            for _ in range(64):
                line.sendall(b"a" * 65536)
            line.shutdown(socket.SHUT_WR)
        out = b""
        while piece := line.recv(65536):
            out += piece
    (said,) = responses(out)
    assert (said.status, said.code) == (413, "too_large")
    assert said.json()["type"] == "error", "in Anthropic's shape, as it was sent to its path"


def test_a_client_that_has_sent_everything_gets_its_answer(served: Stage) -> None:
    (said,) = responses(raw(address(served), chat(), half_close=True))
    assert said.json()["choices"][0]["message"]["content"].startswith("Hello")
    (said,) = responses(raw(address(served), chat(stream=True), half_close=True))
    assert said.body.rstrip().splitlines()[-1].startswith(b": interlock ")


def test_pipelined_calls_are_answered_in_order(served: Stage) -> None:
    keys = [f"run-1/p{n}/0" for n in range(50)]
    calls = b"".join(chat("hello", f"X-Interlock-Call-Key: {key}") for key in keys)
    found = responses(raw(address(served), calls, half_close=True))
    assert [said.headers["x-interlock-call-key"] for said in found] == keys


def test_200_idle_connections_harm_nobody(served: Stage) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(200):
            line = stack.enter_context(socket.create_connection(address(served), timeout=30))
            if number % 2:
                line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHo")
        assert served.chat().status == 200


def test_a_call_whose_client_goes_away_before_the_answer_is_settled(
    served: Stage, upstream: FakeProvider
) -> None:
    go = Event()

    def wait(handler: Any) -> None:
        go.wait(30)
        body = {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 5}}
        handler.say(200, json.dumps(body).encode())

    for streams in (False, True):
        go.clear()
        upstream.plan.put(wait)
        key = f"run-1/away-{streams}/0"
        with socket.create_connection(address(served), timeout=30) as line:
            line.sendall(chat("hello", f"X-Interlock-Call-Key: {key}", model="gpt", stream=streams))
            upstream.arrived.get(timeout=30)
        go.set()
        until(lambda: not open_rows(served), "the call is still open")
        again = served.chat(model="gpt", key=key)
        assert again.headers["x-interlock-replayed"] == "1"
        assert [r["state"] for r in served.rows() if r["step"] == f"away-{streams}"] == ["settled"]


def test_a_stream_whose_client_goes_away_in_the_middle_is_settled_with_its_usage(
    served: Stage, upstream: FakeProvider
) -> None:
    go = Event()
    piece = {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
    stop = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 9}}

    waited: list[bool] = []

    def stream(handler: Any) -> None:
        handler.begin(sse(piece))
        waited.append(go.wait(30))
        for _ in range(100):
            handler.wfile.write(sse(piece))
        handler.wfile.write(sse(stop, usage, "[DONE]"))

    upstream.plan.put(stream)
    with socket.create_connection(address(served), timeout=30) as line:
        key = "run-1/middle/0"
        line.sendall(chat("hello", f"X-Interlock-Call-Key: {key}", model="gpt", stream=True))
        while b"word" not in line.recv(65536):
            pass
    upstream.arrived.get(timeout=30)
    go.set()
    until(lambda: not open_rows(served), "the call is still open")
    assert waited == [True], "the first word reaches the client before the provider says the next"
    (row,) = [row for row in served.rows() if row["step"] == "middle"]
    assert (row["state"], row["input_tokens"], row["output_tokens"]) == ("settled", 7, 9)
    assert row["cost_nano"] == 7 * 10 + 9 * 100


def test_a_client_that_does_not_read_a_huge_stream_is_dropped_and_the_call_settled(
    served: Stage, upstream: FakeProvider
) -> None:
    text = "w" * 60_000
    piece = sse({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
    stop = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}

    def stream(handler: Any) -> None:
        handler.begin(piece)
        for _ in range(500):
            handler.wfile.write(piece)
        handler.wfile.write(sse(stop, usage, "[DONE]"))

    upstream.plan.put(stream)
    with socket.create_connection(address(served), timeout=30) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        line.sendall(chat("hello", "X-Interlock-Call-Key: run-1/huge/0", model="gpt", stream=True))
        upstream.arrived.get(timeout=30)
        until(lambda: not open_rows(served), "the call waits for its client")
        line.settimeout(30)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := line.recv(1 << 20):
                received += len(piece)
    assert received < 20 * 1024 * 1024
    (row,) = [row for row in served.rows() if row["step"] == "huge"]
    assert (row["state"], row["cost_nano"]) == ("settled", 10 + 200)


def test_a_token_in_a_query_a_body_or_a_url_is_no_credential_and_is_never_said_again(
    served: Stage,
) -> None:
    for data in (
        post("/v1/chat/completions?token=token-of-run-1&key=token-of-run-1"),
        post("/token-of-run-1"),
        post("/v1/models", b'{"token": "token-of-run-1"}'),
    ):
        (said,) = responses(raw(address(served), data, half_close=True))
        assert said.status in (401, 404)
        if b"/token-of-run-1" not in data:
            assert b"token-of-run-1" not in said.body
    # What is wrong about the second of two credentials must not be told with the first.
    data = chat("hello", token="\xff\x01" * 3)
    assert b"\xff" not in raw(address(served), data, half_close=True)


def test_whose_call_it_is_cannot_be_chosen_by_its_client(served: Stage) -> None:
    served.issue(principal("run-2", occurrence="manual:2"), token="token-of-run-2")
    own = served.chat(token="token-of-run-2", key="run-2/1/0")
    assert own.status == 200
    for key in (
        "run-2/1/0",  # another run's, to read its answer
        "run-1/../0",
        "run-1/1/0/../../run-2/1/0",
        "run-1//0",
        "run-1/1/-1",
        "run-1/1/99999999999999999999",
        "run-1/" + "a" * 1000 + "/0",
        "run-1/x.1763000000000000001/0",  # one of those that the gateway makes itself
        "run-1/\xe9\xe9/0",
        "run-1/a b/0",
        "run-1/a\tb/0",
        "",
    ):
        answer = served.chat(key=key)
        assert (answer.status, answer.code) == (403, "invalid_call_key"), key
    (said,) = responses(
        raw(
            address(served),
            chat("hello", "X-Api-Key: token-of-run-2", "X-Interlock-Call-Key: run-1/both/0"),
            half_close=True,
        )
    )
    assert said.headers["x-interlock-call-key"] == "run-1/both/0", "the bearer is who calls"


def test_keys_the_gateway_makes_cannot_be_taken_before_it_makes_them(served: Stage) -> None:
    """A row under the next key would make the reservation of its owner fail, and with it those of
    everybody who is in the same commit."""
    made = served.chat().headers["x-interlock-call-key"]
    run, step, _ = made.split("/")
    number = int(step.removeprefix("x."))
    for following in range(number + 1, number + 4):
        refused = served.chat(key=f"{run}/x.{following}/0")
        assert refused.code == "invalid_call_key"
    assert [served.chat().status for _ in range(4)] == [200] * 4


def test_sockets_and_tools_are_reached_by_name_only(served: Stage) -> None:
    control = Path(served.ready["control"])
    assert stat.S_IMODE(control.stat().st_mode) == 0o600
    assert stat.S_IMODE((served.state / "gateway.json").stat().st_mode) == 0o600
    known = {"token_hash": access.hash_token("token-of-run-1")}
    for path in ("/runs/../x", "/runs/..", "/runs/%2e%2e%2fx", "/runs/a/b", "/runs/", "/runs/a%00"):
        for method in ("PUT", "DELETE"):
            assert over_socket(control, method, path, known).status in (400, 404), path
    assert sorted(p.name for p in (served.state / "sockets").glob("*")) == []
    assert not (served.state / "x").exists()
    for body in ([], {}, {"token_hash": 1}, {"token_hash": "a" * 65}, "text"):
        assert over_socket(control, "PUT", "/runs/run-1", body).status == 400
    deep = json.loads("[" * 900 + "]" * 900)
    assert over_socket(control, "PUT", "/runs/run-1", deep).status == 400


def test_a_run_socket_ignores_credentials_of_others_and_keys_of_others(served: Stage) -> None:
    served.issue(principal("run-3", occurrence="manual:3"), token="token-of-run-3")
    known = {"token_hash": access.hash_token("token-of-run-3")}
    control = Path(served.ready["control"])
    path = Path(over_socket(control, "PUT", "/runs/run-3", known).json()["socket"])
    body = {"model": "fast", "messages": [{"role": "user", "content": "hello"}]}
    for headers in (
        {"authorization": "Bearer token-of-run-1"},
        {"x-api-key": "token-of-run-1"},
        {"authorization": "Bearer nonsense"},
    ):
        answer = over_socket(path, "POST", "/v1/chat/completions", body, headers)
        assert answer.headers["x-interlock-call-key"].startswith("run-3/")
        stolen = {**headers, "x-interlock-call-key": "run-1/1/0"}
        answer = over_socket(path, "POST", "/v1/chat/completions", body, stolen)
        assert answer.code == "invalid_call_key"
    served.revoke("run-3")
    lie = {"authorization": "Bearer token-of-run-1"}
    assert over_socket(path, "POST", "/v1/chat/completions", body, lie).code == "revoked"


@pytest.mark.parametrize(
    "name",
    ["../effects__write", "effects__../read", "effects.read/../write", "effects__write\r\nX: y",
     "effects__read\x00", "*", "effects__*", "", "__", ".", "effects__\ud800", "é" * 5000],
)  # fmt: skip
def test_tools_that_are_not_granted_by_exactly_this_name_are_refused(
    served: Stage, name: str
) -> None:
    granted = Grants(models=("fast",), tools={"effects.read": ToolGrant()})
    served.issue(principal("run-4", occurrence="manual:4"), granted, token="token-of-run-4")
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": name, "arguments": {}},
    }
    answer = served.post("/mcp", body, token="token-of-run-4")
    assert answer.status in (200, 400)
    error = answer.json()["error"]
    assert error.get("data", {}).get("code") in ("unknown_tool", "not_granted", None)
    assert "data" in error or error["code"] in (-32602, -32700, -32600)


def test_nothing_of_all_this_is_left_open(served: Stage) -> None:
    until(lambda: not open_rows(served), "a call is still open")
    log = served.log.read_text()
    assert "token-of-run" not in log.replace("/token-of-run-1", "")
    assert '"fault":' not in log
    assert served.terminate() == 0
