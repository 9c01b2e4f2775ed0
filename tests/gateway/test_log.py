"""What stands in a log line, and what never does."""

from __future__ import annotations

import ast
import io
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway
from gateway.live import Finished, LiveCall
from gateway.log import EVENTS, Log, LogHandler
from gateway.redact import REDACTED
from gateway.refusals import Code, Refusal
from gateway.values import CallKey, Millis, RunId, StepPath
from tests.gateway.stage import NOW


class Moving:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> Millis:
        return self.at


class Stage:
    """A log, its clock, and what it wrote."""

    def __init__(self, **options: Any) -> None:
        self.clock, self.stream = Moving(), io.StringIO()
        self.log = Log(self.clock, self.stream, **options)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def answer(self, number: int = 0) -> None:
        self.log.answered(call(number), Finished(5, 3, 4, replayed=False))


def call(number: int = 0) -> LiveCall:
    return LiveCall(CallKey(RunId("run-1"), StepPath(str(number))), "hash", "hash")


def test_a_line_says_when_how_loud_and_what() -> None:
    stage = Stage()
    stage.log.write("ready", host="127.0.0.1", port=1, pid=2)
    assert stage.lines() == [
        {"at": NOW, "level": "info", "event": "ready", "host": "127.0.0.1", "port": 1, "pid": 2}
    ]


def test_a_fact_that_is_not_named_is_left_out_and_its_name_told() -> None:
    stage = Stage()
    stage.log.write("stopped", cut=1, prompt="the whole conversation")
    stage.log.write("surprise", body="everything")
    first, second = stage.lines()
    assert (first["cut"], first["unnamed"]) == (1, ["prompt"])
    assert (second["event"], second["unnamed"]) == ("surprise", ["body"])
    assert "conversation" not in stage.stream.getvalue()
    assert "everything" not in stage.stream.getvalue()


def test_every_line_the_gateway_writes_has_named_facts_only() -> None:
    package = Path(str(gateway.__file__)).parent
    found = 0
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            on = ast.unparse(node.func.value)
            if node.func.attr != "write" or on not in ("log", "self._log"):
                continue
            event = node.args[0]
            assert isinstance(event, ast.Constant), f"{path}:{node.lineno} name the event"
            names = {word.arg for word in node.keywords} - {"level"}
            assert names <= EVENTS[event.value].facts, f"{path}:{node.lineno} add it to EVENTS"
            found += 1
    assert found > 5


def test_only_so_many_answered_calls_a_second_have_a_line() -> None:
    stage = Stage(answered_per_second=2)
    for number in range(10):
        stage.answer(number)
    stage.clock.at = Millis(NOW + 1000)
    stage.answer(10)
    stage.answer(11)
    assert [line["call"] for line in stage.lines()] == [f"run-1/{n}/0" for n in (0, 1, 10, 11)]
    assert [line.get("suppressed") for line in stage.lines()] == [None, None, 8, None]


def test_answered_calls_that_nobody_heard_of_are_counted_at_the_end() -> None:
    stage = Stage(answered_per_second=1)
    for number in range(4):
        stage.answer(number)
    stage.log.close()
    stage.log.close()
    assert [line["event"] for line in stage.lines()] == ["answered", "suppressed"]
    assert stage.lines()[-1]["answered"] == 3


def test_refusals_and_faults_always_have_a_line() -> None:
    stage = Stage(answered_per_second=0)
    broken = call()
    try:
        raise KeyError("the text of an exception may hold anything")
    except KeyError as error:
        broken.fault = error
    for _ in range(100):
        stage.answer()
        stage.log.refused(call(), Refusal(Code.STOPPED, "stopped"))
        stage.log.refused(broken, Refusal(Code.INTERNAL_ERROR, "a fault"))
    lines = stage.lines()
    assert len(lines) == 200
    assert {(line["level"], line["code"]) for line in lines} == {
        ("warning", "stopped"),
        ("error", "internal_error"),
    }
    assert lines[1]["fault"].startswith("KeyError at ")
    assert "may hold anything" not in stage.stream.getvalue()


def test_lines_below_the_level_are_not_written() -> None:
    stage = Stage(level="warning")
    stage.log.write("ready", host="h", port=1, pid=2)
    stage.answer()
    stage.log.write("recovered", unknown=1)
    assert [line["event"] for line in stage.lines()] == ["recovered"]


def test_messages_of_the_server_library_come_with_their_level() -> None:
    stage = Stage()
    logger = logging.Logger("uvicorn.test")
    logger.addHandler(LogHandler(stage.log))
    logger.warning("odd request from %s", "there")
    try:
        raise ValueError("Bearer abcdefgh12345678")
    except ValueError:
        logger.exception("it broke")
    odd, broke = stage.lines()
    assert (odd["level"], odd["text"]) == ("warning", "odd request from there")
    assert (broke["level"], broke["fault"]) == ("error", "ValueError")
    assert "abcdefgh" not in stage.stream.getvalue()


def test_a_stream_that_is_gone_fails_no_call() -> None:
    stage = Stage()
    stage.stream.close()
    stage.log.write("stopped", cut=0)
    stage.answer()


def test_lines_of_many_threads_stay_whole() -> None:
    stage = Stage()

    def write() -> None:
        for _ in range(200):
            stage.log.write("server", text="x" * 300)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(stage.lines()) == 1600


SECRETS = st.text(min_size=8, max_size=80, alphabet=st.characters(codec="utf-8"))


@given(st.lists(SECRETS, min_size=1, max_size=4), st.text(max_size=20), st.data())
def test_a_secret_this_process_has_used_never_is_in_a_line(
    secrets: list[str], around: str, data: st.DataObject
) -> None:
    stage = Stage()
    stage.log.redact(secrets)
    secret = data.draw(st.sampled_from(secrets))
    text = f"{around}{secret}{around}"
    stage.log.write("server", text=text)
    stage.log.write("server", text={"deep": [text, {text: 1}]})
    stage.log.write("server", text=Refusal(Code.PROVIDER_ERROR, text))
    for line in stage.lines():
        shown = line["text"]
        texts = [shown] if isinstance(shown, str) else [shown["deep"][0], *shown["deep"][1]]
        for each in texts:
            assert REDACTED in each
            assert not any(secret in part for part in each.split(REDACTED))


KEYS = st.one_of(
    st.from_regex(r"sk-(ant-|proj-)?[A-Za-z0-9_]{20,60}", fullmatch=True),
    st.from_regex(r"gh[pousr]_[A-Za-z0-9]{36}", fullmatch=True),
    st.from_regex(r"glpat-[A-Za-z0-9]{20}", fullmatch=True),
    st.from_regex(r"AKIA[0-9A-Z]{16}", fullmatch=True),
    st.from_regex(r"eyJ[A-Za-z0-9]{10,40}\.[A-Za-z0-9]{10,40}\.[A-Za-z0-9]{10}", fullmatch=True),
)


@given(KEYS, st.sampled_from(["{}", "key={}", "<{}>", "Bearer {}", '"{}",', "at {} there"]))
def test_a_key_nobody_told_us_about_never_is_in_a_line(key: str, around: str) -> None:
    stage = Stage()
    stage.log.write("server", text=around.format(key))
    assert key not in stage.stream.getvalue()


@pytest.mark.parametrize(
    "text, left",
    [
        ("key sk-live-VERYSECRETKEY1234567890 is wrong", "key [redacted] is wrong"),
        ("ilk_" + "a1B" * 15, "[redacted]"),
        ("Authorization: Bearer abcdefghijkl", "[redacted]"),
        ("got eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl back", "got [redacted] back"),
        ("https://ada:hunter2@example.com/x", "https://[redacted]@example.com/x"),
        ("api_key=hunter22&x=1", "[redacted]&x=1"),
        ("a random Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFiY2RlZg one", "a random [redacted] one"),
    ],
)
def test_what_looks_like_a_key_never_is_in_a_line(text: str, left: str) -> None:
    stage = Stage()
    stage.log.write("server", text=text)
    (line,) = stage.lines()
    for piece in ("SECRETKEY", "a1Ba1B", "abcdefghijkl", "c2lnbmF0", "hunter", "Zm9v"):
        assert piece not in line["text"]
    assert line["text"] == left


@pytest.mark.parametrize(
    "text",
    [
        "run-5f2c9e0d1a7b3c44/x.1763000000000000001/0",
        "rel-1b2c3d4e5f60",
        "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0",
        "/srv/Interlock/venv/lib/python3.11/site-packages/gateway/door/books.py:118",
        "provider cloud answered HTTP 503; the next is anthropic-large-2026-11-01",
        "https://api.example.com:8443/v1/chat/completions",
        "the key for api.example.com is not sent: the policy allows it for no host only",
    ],
)
def test_what_people_look_for_in_a_line_stays(text: str) -> None:
    stage = Stage()
    stage.log.write("server", text=text)
    assert stage.lines()[0]["text"] == text


def test_a_line_is_out_when_write_returns() -> None:
    flushed: list[str] = []

    class Stream(io.StringIO):
        def flush(self) -> None:
            flushed.append(self.getvalue())

    Log(Moving(), Stream()).write("stopped", cut=0)
    assert json.loads(flushed[-1])["event"] == "stopped"
