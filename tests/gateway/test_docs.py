"""The documented formats are the real ones."""

from __future__ import annotations

import ast
import json
import re
from inspect import getsource
from pathlib import Path
from typing import Any, get_args

import pytest

import gateway
from gateway import calls, process
from gateway.app.control import ControlApp
from gateway.app.face import GatewayApp
from gateway.app.tools import ARTIFACTS
from gateway.budgets import share_of
from gateway.database import Database
from gateway.mcp.messages import REFUSED
from gateway.policy import FORMAT, Api, Grants, Policy, Provider, TapeEntry, intersect
from gateway.providers import native, tape
from gateway.providers.conversation import Reply
from gateway.providers.dialects import anthropic, embeddings, openai, responses
from gateway.refusals import STATUS, Code
from gateway.values import AgentName, EffectKey, Occurrence

DOCS = Path(__file__).parents[2] / "docs"
CALLS = (DOCS / "formats/calls.md").read_text()
EFFECT = (DOCS / "formats/effect-key.md").read_text()
EFFECTIVE = (DOCS / "formats/effective-policy.md").read_text()
MODELS = (DOCS / "policies/models.md").read_text()
CASSETTES = (DOCS / "policies/cassettes.md").read_text()
HTTP = (DOCS / "gateway-http.md").read_text()


def first_column(text: str, header: str) -> list[str]:
    """Names in back quotes in the first column of the table with this header."""
    table = text.split(f"| {header} |", 1)[1].split("\n\n")[0]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def examples(text: str) -> list[Any]:
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


def test_the_ledgers_columns_are_the_documented_ones(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.sqlite")
    database.migrate(calls.MIGRATIONS)
    columns = [row["name"] for row in database.read("SELECT name FROM pragma_table_info('calls')")]
    database.close()
    assert first_column(CALLS, "Column") == columns
    assert first_column(CALLS, "State") == list(calls.CallState)


def test_the_example_row_is_one_the_code_can_read() -> None:
    (row,) = examples(CALLS)
    assert set(row) <= set(first_column(CALLS, "Column"))
    assert share_of(row).spent_nano == row["cost_nano"]
    assert Reply.from_json(json.loads(row["response"])).usage is not None


def test_the_example_effect_key_is_right() -> None:
    ((agent, occurrence, action, ordinal),) = examples(EFFECT)
    key = EffectKey(AgentName(agent), Occurrence(occurrence), action, ordinal)
    assert f"→ `{key}`" in EFFECT


def test_the_policys_fields_are_the_documented_ones() -> None:
    assert first_column(EFFECTIVE, "Field") == list(Policy.model_fields)
    assert FORMAT in EFFECTIVE


def test_the_example_intersection_is_right() -> None:
    release, current, expected = (Grants.model_validate(x) for x in examples(EFFECTIVE))
    assert intersect(release, current) == expected


def test_every_refusal_is_documented_with_its_status() -> None:
    documented = dict(re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", HTTP, re.MULTILINE))
    assert documented == {str(code): str(STATUS[code]) for code in Code}


def test_every_header_the_code_sends_is_documented() -> None:
    package = Path(str(gateway.__file__)).parent
    sent: set[str] = set()
    for path in package.rglob("*.py"):
        sent |= set(re.findall(r"\"(X-Interlock-[A-Za-z-]+)\"", path.read_text()))
    assert sent == set(first_column(HTTP, "Header"))


def section(title: str) -> str:
    return HTTP.split(f"## {title}\n", 1)[1].split("\n#", 1)[0]


def test_the_endpoints_are_the_documented_ones() -> None:
    nothing: Any = None
    app = GatewayApp(nothing, nothing, nothing, nothing, nothing)
    served = {f"{method} {path}" for method, path in app._routes}
    served |= {"POST /mcp", f"GET {ARTIFACTS}ID"}
    table = re.findall(r"^\| (`.*?) \|", section("Endpoints"), re.MULTILINE)
    documented = [name for cell in table for name in re.findall(r"`([A-Z]+ /[^`]*)`", cell)]
    assert sorted(documented) == sorted(served)


def test_the_control_sockets_requests_are_the_documented_ones() -> None:
    route = r"path(?: == |\.startswith\()\"([^\"]+)\"\)? and method == \"([A-Z]+)\""
    served = {f"{method} {path}" for path, method in re.findall(route, getsource(ControlApp))}
    table = section("Control socket: `DIR/gateway-control.sock` (mode 0600, HTTP)")
    documented = re.findall(r"^\| `([A-Z]+ /[^`]*)`", table, re.MULTILINE)
    assert sorted(name.replace("<run>", "") for name in documented) == sorted(served)


def test_the_options_of_the_process_are_the_documented_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        process.parse(["--help"], {})
    options = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert options == set(re.findall(r"`(--[a-z-]+)", section("Start, ready, stop")))


def test_the_facts_of_a_refusal_are_the_documented_ones() -> None:
    told: set[str] = {"retryable"}
    for path in Path(str(gateway.__file__)).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal":
                told |= {keyword.arg for keyword in node.keywords if keyword.arg is not None}
    listed = section("Errors").split("where they apply,", 1)[1].split("\nRefusals", 1)[0]
    assert set(re.findall(r"`([a-z_]+)`", listed)) == told


def test_what_a_forwarded_request_loses_is_documented() -> None:
    gone = {name for names in native.UNMANAGED.values() for name in names}
    assert all(f"`{name}`" in section("Endpoints") for name in gone)
    assert f"−{-REFUSED} and `data.code`" in section("Errors")


def test_the_dialects_paths_are_documented() -> None:
    assert GatewayApp.__doc__
    for path in (
        openai.PATH,
        responses.PATH,
        embeddings.PATH,
        anthropic.PATH,
        anthropic.COUNT_PATH,
    ):
        assert f"`POST {path}`" in HTTP
        assert f"`POST {path}`" in MODELS


def test_the_kinds_of_provider_and_what_they_speak_are_documented() -> None:
    kinds = get_args(Provider.model_fields["kind"].annotation)
    assert all(f"`{kind}`" in MODELS for kind in kinds)
    assert all(f"`{api}`" in MODELS for api in get_args(Api))


def test_what_a_tape_leaves_out_is_documented() -> None:
    left_out = CASSETTES.split("is left out:", 1)[1].split("The model's", 1)[0]
    assert set(re.findall(r"`([a-z_]+)`", left_out)) == tape.VOLATILE
    assert set(first_column(CASSETTES, "Field")) == set(TapeEntry.model_fields)
