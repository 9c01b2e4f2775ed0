"""interlock.lock: fingerprints of tools, asked of the gateway, written so that people see what
changed."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import pytest
from click.testing import CliRunner

from reconciler.cli import interlock
from reconciler.operations import Refused
from reconciler.operations.repository import lock_tools, tools_to_lock
from reconciler.process.catalogue import NotTold, catalogue, catalogues
from tests.support.small_fleet import FILES, IMAGE, LOCKED, RELOCKED

LIST, DELETE, GONE = "a" * 64, "b" * 64, "c" * 64
LOCK = f"""\
# Reviewed by ines.
lock:
  images: {{default: '{IMAGE}'}}
  tools:
    tracker.open: {LOCKED}   # after the incident
    tracker.gone: {GONE}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The small fleet on disk, with comments in its lock and an entry of a tool that is gone."""
    folder = tmp_path / "config"
    for path, text in {**FILES, "interlock.lock": LOCK}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def test_what_is_locked_is_what_is_classified(repository: Path) -> None:
    assert tools_to_lock(repository) == {"tracker": {"delete": None, "list": None, "open": LOCKED}}


def test_a_change_is_told_and_comments_stay(repository: Path) -> None:
    done = lock_tools(repository, {"tracker": {"open": RELOCKED, "list": LIST, "delete": DELETE}})
    assert done.changed == (
        f"tracker.delete: new → {DELETE[:19]}",
        f"tracker.list: new → {LIST[:19]}",
        f"tracker.open: {LOCKED[:19]} → {RELOCKED[:19]}",
        "tracker.gone: not declared any more, removed",
    )
    assert done.problems == ()
    text = (repository / "interlock.lock").read_text()
    assert "# Reviewed by ines." in text
    assert f"tracker.open: {RELOCKED}   # after the incident" in text
    assert "tracker.gone" not in text
    assert tools_to_lock(repository)["tracker"] == {
        "delete": DELETE,
        "list": LIST,
        "open": RELOCKED,
    }


def test_a_second_time_nothing_changes_and_nothing_is_written(repository: Path) -> None:
    told = {"tracker": {"open": LOCKED, "list": LIST, "delete": DELETE}}
    lock_tools(repository, told)
    before = (repository / "interlock.lock").stat().st_mtime_ns
    assert lock_tools(repository, told).changed == ()
    assert (repository / "interlock.lock").stat().st_mtime_ns == before


def test_a_tool_that_vanished_is_reported_and_stays_locked(repository: Path) -> None:
    done = lock_tools(repository, {"tracker": {"list": LIST, "delete": DELETE}})
    assert done.problems == (
        "tracker.open: the server has no such tool any more; it stays locked. "
        "Correct gateway/mcp-servers.yaml",
    )
    assert tools_to_lock(repository)["tracker"]["open"] == LOCKED


def test_a_tool_that_nobody_classified_is_told_and_not_locked(repository: Path) -> None:
    told = {"open": LOCKED, "list": LIST, "delete": DELETE, "drop_all": GONE}
    done = lock_tools(repository, {"tracker": told})
    assert done.notes == ("tracker: not classified, so not locked: drop_all",)
    assert "drop_all" not in (repository / "interlock.lock").read_text()


def test_a_server_that_was_not_reached_keeps_what_was_locked(repository: Path) -> None:
    done = lock_tools(repository, {"tracker": "connection refused"})
    assert done.problems == ("tracker: connection refused",)
    assert tools_to_lock(repository)["tracker"]["open"] == LOCKED


def test_a_directory_with_errors_is_refused(repository: Path) -> None:
    (repository / "interlock.yaml").write_text("fleet: 1\n")
    with pytest.raises(Refused, match="interlock validate"):
        tools_to_lock(repository)


Answers = dict[str, tuple[int, Any]]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[tuple[Path, Answers]]:
    """A state directory with a control socket that answers what a test says."""
    folder = tmp_path / "state"
    folder.mkdir()
    answers: Answers = {}

    class Control(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/catalogue"
            status, document = answers[asked["server"]]
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        def address_string(self) -> str:
            return "control"

    with UnixStreamServer(str(folder / "gateway-control.sock"), Control) as server:
        (folder / "gateway.json").write_text(
            json.dumps({"pid": os.getpid(), "url": "http://127.0.0.1:1"})
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, answers
        server.shutdown()
        thread.join()


def told(tools: Mapping[str, str]) -> tuple[int, Any]:
    return 200, {
        "tools": [
            {"name": n, "description": "…", "input_schema": {}, "fingerprint": f}
            for n, f in tools.items()
        ]
    }


def test_the_gateway_tells_names_and_fingerprints(state: tuple[Path, Answers]) -> None:
    folder, answers = state
    answers["tracker"] = told({"open": RELOCKED})
    assert catalogue(folder, "tracker") == {"open": RELOCKED}


@pytest.mark.parametrize(
    "answer, words",
    [
        ((404, {"error": {"message": "no such server"}}), "interlock reconcile --once"),
        ((502, {"error": {"message": "tracker: connection refused"}}), "connection refused"),
        ((500, {}), "the gateway answers 500"),
        ((200, {"tools": [{"name": "open"}]}), "no catalogue"),
        ((200, b"<html>"), "no catalogue"),
    ],
)
def test_one_server_that_cannot_be_asked_does_not_keep_the_others(
    state: tuple[Path, Answers], answer: tuple[int, Any], words: str
) -> None:
    folder, answers = state
    answers |= {"bad": answer, "tracker": told({"open": RELOCKED})}
    found = catalogues(folder, ["bad", "tracker"])
    assert words in str(found["bad"])
    assert found["tracker"] == {"open": RELOCKED}


def test_a_state_directory_without_a_gateway_says_so(tmp_path: Path) -> None:
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(tmp_path / "gateway-control.sock"))  # nobody listens
    with pytest.raises(NotTold, match="does not answer"):
        catalogue(tmp_path, "tracker")
    bound.close()


def test_the_command_locks_images_and_tools_and_ends_with_1_when_one_vanished(
    repository: Path, state: tuple[Path, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.sandbox.images.image_id", lambda _: IMAGE)
    folder, answers = state
    answers["tracker"] = told({"open": RELOCKED, "list": LIST, "delete": DELETE})
    command = ["lock", str(repository), "--state", str(folder), "--tools"]
    result = CliRunner().invoke(interlock, command)
    assert result.exit_code == 0, result.output
    assert f"tracker.open: {LOCKED[:19]} → {RELOCKED[:19]}" in result.output
    assert f"{RELOCKED}   # after the incident" in (repository / "interlock.lock").read_text()
    answers["tracker"] = told({"open": RELOCKED, "list": LIST})
    result = CliRunner().invoke(interlock, command)
    assert result.exit_code == 1
    assert "tracker.delete: the server has no such tool any more" in result.output


def test_without_a_state_directory_only_images_are_locked(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.sandbox.images.image_id", lambda _: IMAGE)
    command = ["lock", str(repository), "--state", str(tmp_path / "none")]
    result = CliRunner().invoke(interlock, command)
    assert result.exit_code == 0, result.output
    assert "fingerprint" not in result.output
