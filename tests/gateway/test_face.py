"""The HTTP face of the real process: identity, keys, budgets, stops, sockets, refusals."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway import access
from gateway.policy import BudgetRule, Limits, Model, Price, Provider, Window
from gateway.values import NanoUSD
from tests.gateway.stage import (
    NOW,
    SCRIPT,
    FakeProvider,
    Stage,
    ceiling,
    over_socket,
    policy,
    principal,
)

DAILY = BudgetRule(name="daily", limit=NanoUSD(20_000), window=Window.DAY)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One process for all tests of this module; each test publishes what it needs."""
    with Stage(tmp_path_factory.mktemp("face")) as stage:
        stage.publish(policy())
        stage.issue()
        yield stage.start()


@pytest.fixture(autouse=True)
def plain(served: Stage) -> None:
    served.publish(policy())


_serial = iter(range(10**6))


def fresh(served: Stage, **changes: object) -> tuple[str, str]:
    """A run of its own: (run, token)."""
    number = next(_serial)
    run, token = f"run-f{number}", f"token-f{number}"
    served.issue(principal(run, occurrence=f"manual:f{number}", **changes), token=token)
    return run, token


def test_health_needs_no_credentials_and_readiness_needs_a_policy(served: Stage) -> None:
    assert served.get("/healthz", token=None).status == 200
    assert served.get("/readyz", token=None).status == 200
    with served.database.transaction() as tx:
        tx.execute("DELETE FROM current_policy")
    assert served.get("/readyz", token=None).status == 503
    refused = served.chat()
    assert (refused.status, refused.code) == (503, "no_policy")


def test_the_ready_file_tells_where_the_gateway_is(served: Stage) -> None:
    ready = json.loads((served.state / "gateway.json").read_text())
    assert ready["pid"] == served.process.pid
    assert ready["url"] == f"http://127.0.0.1:{ready['port']}"
    assert Path(ready["control"]).is_socket()


def test_calls_without_valid_credentials_are_refused(served: Stage) -> None:
    assert served.chat(token=None).code == "unauthenticated"
    assert served.chat(token="guess").status == 401
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert served.post("/mcp", body, token=None).status == 401


def test_anthropic_clients_show_their_token_as_api_key(served: Stage) -> None:
    body = {"model": "fast", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
    answer = served.post("/v1/messages", body, token=None, **{"x-api-key": "token-of-run-1"})
    assert answer.status == 200
    assert answer.json()["content"][0]["text"].startswith("Hello")


def test_the_same_key_is_answered_from_the_ledger(served: Stage) -> None:
    run, token = fresh(served)
    first = served.chat(token=token, key=f"{run}/1/0")
    again = served.chat(token=token, key=f"{run}/1/0")
    assert first.json()["choices"] == again.json()["choices"]
    assert first.headers["x-interlock-replayed"] is None
    assert again.headers["x-interlock-replayed"] == "1"
    assert int(first.headers["x-interlock-cost-nano"]) > 0
    assert again.headers["x-interlock-cost-nano"] == "0"
    assert [row["attempt"] for row in served.rows() if row["run"] == run] == [0]


def test_a_stored_answer_is_replayed_as_a_stream_too(served: Stage) -> None:
    run, token = fresh(served)
    served.chat(token=token, key=f"{run}/1/0")
    streamed = served.chat(token=token, key=f"{run}/1/0", stream=True)
    assert b"Hello to you too" in streamed.body
    comment = streamed.body.rstrip().splitlines()[-1]
    figures = json.loads(comment.removeprefix(b": interlock "))
    assert figures["replayed"] is True
    assert figures["cost_nano"] == 0
    assert figures["call_key"] == f"{run}/1/0"


def test_a_stream_ends_with_its_figures(served: Stage) -> None:
    run, token = fresh(served)
    streamed = served.chat(token=token, key=f"{run}/1/0", stream=True)
    assert streamed.headers["x-interlock-model"] == "fast"
    figures = json.loads(streamed.body.rstrip().splitlines()[-1].removeprefix(b": interlock "))
    (row,) = [row for row in served.rows() if row["run"] == run]
    assert figures["cost_nano"] == row["cost_nano"] > 0
    assert figures["output_tokens"] == row["output_tokens"]


def test_another_request_under_the_same_key_is_refused(served: Stage) -> None:
    run, token = fresh(served)
    served.chat(token=token, key=f"{run}/1/0")
    refused = served.chat("something else", token=token, key=f"{run}/1/0")
    assert (refused.status, refused.code) == (409, "request_mismatch")
    assert refused.headers["x-should-retry"] == "false"


def test_a_key_of_another_run_is_refused(served: Stage) -> None:
    _, token = fresh(served)
    assert served.chat(token=token, key="run-1/1/0").code == "invalid_call_key"
    assert served.chat(token=token, key="nonsense").code == "invalid_call_key"


def test_calls_without_a_key_get_one_each(served: Stage) -> None:
    run, token = fresh(served)
    keys = {served.chat(token=token).headers["x-interlock-call-key"] for _ in range(2)}
    assert len(keys) == 2
    assert all(key.startswith(f"{run}/x.") for key in keys)


def test_models_outside_release_and_policy_are_not_granted(served: Stage) -> None:
    wider = {
        "fast": Model(provider="script", id="s"),
        "costly": Model(provider="script", id="s"),
    }
    served.publish(policy(models=wider))
    assert served.chat(model="costly").code == "not_granted"
    assert served.chat(model="missing").code == "unknown_model"
    served.publish(policy(), {"triage": ceiling(models=())})
    assert served.chat().code == "not_granted"


def test_a_stop_works_at_once_and_names_who_and_why(served: Stage) -> None:
    with served.database.transaction() as tx:
        access.stop(tx, "triage", reason="it deletes things", actor="ann", now=NOW)
    refused = served.chat()
    assert (refused.status, refused.code) == (403, "stopped")
    assert "ann: it deletes things" in refused.json()["error"]["message"]
    with served.database.transaction() as tx:
        access.unstop(tx, "triage")
    assert served.chat().status == 200


def test_a_revoked_run_is_refused_from_the_next_call_on(served: Stage) -> None:
    run, token = fresh(served)
    assert served.chat(token=token).status == 200
    served.revoke(run)
    refused = served.chat(token=token)
    assert (refused.status, refused.code) == (403, "revoked")
    assert "harm seen" in refused.json()["error"]["message"]


def test_a_budget_refuses_with_rule_remainder_and_reset(served: Stage) -> None:
    served.publish(policy(budgets=(DAILY.model_copy(update={"limit": NanoUSD(100)}),)))
    refused = served.chat()
    error = refused.json()["error"]
    assert (refused.status, error["code"], error["rule"]) == (429, "budget_exceeded", "daily")
    assert error["left_nano"] == 0, "earlier tests have spent it"
    assert error["resets_at"] % 86_400_000 == 0
    assert "daily" in error["message"]
    alerts = served.database.read("SELECT * FROM alerts WHERE kind = 'budget_refused'")
    assert len(alerts) == 1


def test_the_runs_own_cost_limit_clamps_and_then_refuses(served: Stage) -> None:
    run, token = fresh(served)
    limits = Limits(max_cost=NanoUSD(9_000))
    served.publish(policy(), {"triage": ceiling(limits=limits)})
    assert served.chat(token=token).status == 200
    (row,) = [row for row in served.rows() if row["run"] == run]
    assert row["reserved_nano"] <= 9_000 < 4096 * 100
    served.chat(token=token)
    last = [served.chat(token=token) for _ in range(6)][-1]
    assert last.json()["error"]["rule"] == "run"
    spent = sum(r["cost_nano"] for r in served.rows() if r["run"] == run)
    assert spent <= 9_000


def test_an_unknown_price_is_refused_only_where_money_is_limited(served: Stage) -> None:
    free = policy(models={"fast": Model(provider="script", id="scripted")})
    served.publish(free)
    assert served.chat().status == 200
    served.publish(free.model_copy(update={"budgets": (DAILY,)}))
    refused = served.chat()
    assert (refused.status, refused.code) == (403, "unknown_price")
    served.publish(
        free.model_copy(update={"budgets": (DAILY.model_copy(update={"mode": "audit"}),)})
    )
    assert served.chat().status == 200


def test_the_ledger_names_the_price_table(served: Stage) -> None:
    run, token = fresh(served)
    digest = served.publish(policy())
    served.chat(token=token)
    (row,) = [row for row in served.rows() if row["run"] == run]
    assert row["price_table"] == f"override:{digest[:12]}"
    assert row["policy"] == digest


def test_bad_requests_name_the_field(served: Stage) -> None:
    broken = served.post("/v1/chat/completions", b"{")
    assert (broken.status, broken.code) == (400, "invalid_request")
    for body, field in [
        ({"model": "fast", "messages": []}, "messages"),
        ({"model": "fast", "messages": "x"}, "messages"),
        ({"model": "fast", "messages": [{"role": "alien"}]}, "messages[0].role"),
        ({"model": "fast", "messages": [{"role": "user", "content": "x"}], "n": 2}, "`n`"),
        ({"messages": [{"role": "user", "content": "x"}]}, "model"),
    ]:
        refused = served.post("/v1/chat/completions", body)
        assert refused.status == 400, body
        assert field in refused.json()["error"]["message"]
    claude = served.post("/v1/messages", {"model": "fast", "messages": []})
    assert claude.json()["type"] == "error"
    assert served.get("/nowhere").code == "not_found"


def test_a_run_socket_is_the_principal_whatever_headers_say(served: Stage) -> None:
    run, token = fresh(served)
    control = Path(served.ready["control"])
    assert stat.S_IMODE(control.stat().st_mode) == 0o600
    body = {"token_hash": access.hash_token(token)}
    opened = over_socket(control, "PUT", f"/runs/{run}", body)
    assert opened.status == 200
    path = Path(opened.json()["socket"])
    assert path == served.state / "sockets" / run / "gateway.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    chat = {"model": "fast", "messages": [{"role": "user", "content": "hello"}]}
    lie = {"authorization": "Bearer token-of-run-1", "content-type": "application/json"}
    answer = over_socket(path, "POST", "/v1/chat/completions", chat, lie)
    assert answer.status == 200
    assert answer.headers["X-Interlock-Call-Key"].startswith(f"{run}/")
    listed = over_socket(control, "GET", "/runs").json()["runs"]
    assert run in [entry["run"] for entry in listed]
    assert over_socket(control, "PUT", f"/runs/{run}", body).status == 200
    assert over_socket(control, "DELETE", f"/runs/{run}").status == 204
    assert over_socket(control, "DELETE", f"/runs/{run}").status == 204
    assert not path.parent.exists()


def test_the_control_socket_refuses_what_makes_no_sense(served: Stage) -> None:
    control = Path(served.ready["control"])
    run, token = fresh(served)
    known = {"token_hash": access.hash_token(token)}
    unknown = {"token_hash": "0" * 64}
    assert over_socket(control, "PUT", f"/runs/{run}", unknown).status == 404
    assert over_socket(control, "PUT", "/runs/run-other", known).status == 409
    assert over_socket(control, "PUT", "/runs/..%2Fx", known).status == 400
    assert over_socket(control, "PUT", f"/runs/{run}", {"token_hash": "short"}).status == 400
    assert over_socket(control, "GET", "/secrets").status == 404


def test_sockets_of_one_run_do_not_reach_the_control_endpoints(served: Stage) -> None:
    run, token = fresh(served)
    control = Path(served.ready["control"])
    body = {"token_hash": access.hash_token(token)}
    path = Path(over_socket(control, "PUT", f"/runs/{run}", body).json()["socket"])
    assert over_socket(path, "PUT", f"/runs/{run}", body).status == 404
    assert over_socket(path, "GET", "/runs").status == 404


def test_two_requests_with_one_key_are_one_call(served: Stage) -> None:
    run, token = fresh(served)
    with FakeProvider() as fake:
        target = Model(provider="fake", id="g", price=Price(input=NanoUSD(1), output=NanoUSD(1)))
        served.publish(
            policy(
                providers={
                    "fake": Provider(kind="openai", base_url=f"{fake.url}/v1"),
                    "script": Provider(kind="scripted", script=SCRIPT),
                },
                models={"gpt": target},
            )
        )

        def slow(handler: object) -> None:
            fake.release.wait(30)
            from tests.gateway.stage import openai_text

            handler.say(200, openai_text("once"), "text/event-stream")  # type: ignore[attr-defined]

        fake.plan.put(slow)
        with ThreadPoolExecutor(2) as pool:
            calls = [
                pool.submit(served.chat, model="gpt", token=token, key=f"{run}/1/0")
                for _ in range(2)
            ]
            fake.arrived.get(timeout=30)
            fake.release.set()
            answers = [call.result(timeout=30) for call in calls]
    assert [a.json()["choices"][0]["message"]["content"] for a in answers] == ["once", "once"]
    assert len(fake.requests) == 1
