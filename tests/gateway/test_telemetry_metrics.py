"""What a Prometheus server learns about calls."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.redact import REDACTED, Redactor
from gateway.refusals import Code
from gateway.telemetry import CONTENT_TYPE, BudgetLevel, Outcome, Readings, Telemetry
from gateway.telemetry.series import OTHER
from gateway.values import AgentName, Millis, NanoUSD, Purpose
from tests.gateway.stage import principal
from tests.gateway.telemetry_stage import model_call, refusal, scrape, tool_call, total


def test_a_settled_call_is_counted_with_its_tokens_and_its_cost() -> None:
    telemetry = Telemetry()
    telemetry.observe(model_call())
    telemetry.observe(model_call())
    samples = scrape(telemetry)
    caller = {"agent": "triage", "team": "platform", "purpose": "live", "model": "fast"}
    assert total(samples, "interlock_calls_total", kind="model", outcome="settled", **caller) == 2
    assert total(samples, "interlock_tokens_total", token_kind="input", **caller) == 620
    assert total(samples, "interlock_tokens_total", token_kind="cached", **caller) == 200
    assert total(samples, "interlock_cost_dollars_total", **caller) == 2.5


def test_durations_tokens_and_the_first_token_are_told_in_the_conventions_names() -> None:
    telemetry = Telemetry()
    telemetry.observe(model_call())
    samples = scrape(telemetry)
    operation = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "azure.ai.openai",
        "gen_ai_request_model": "gpt-5-mini",
    }
    seconds = "gen_ai_client_operation_duration_seconds"
    assert total(samples, f"{seconds}_sum", **operation) == 1.5
    assert total(samples, f"{seconds}_bucket", le="1.28", **operation) == 0
    assert total(samples, f"{seconds}_bucket", le="2.56", **operation) == 1
    first = "gen_ai_server_time_to_first_token_seconds"
    assert total(samples, f"{first}_sum", **operation) == 0.3
    usage = "gen_ai_client_token_usage"
    assert total(samples, f"{usage}_sum", gen_ai_token_type="input", **operation) == 310
    assert total(samples, f"{usage}_sum", gen_ai_token_type="output", **operation) == 21


def test_a_value_on_a_bound_is_in_its_bucket() -> None:
    telemetry = Telemetry()
    telemetry.observe(model_call(duration_us=640_000))
    samples = scrape(telemetry)
    name = "gen_ai_client_operation_duration_seconds_bucket"
    assert total(samples, name, le="0.32") == 0
    assert total(samples, name, le="0.64") == 1


def test_a_tool_call_has_its_own_duration_and_costs_nothing() -> None:
    telemetry = Telemetry()
    telemetry.observe(tool_call())
    samples = scrape(telemetry)
    name = "gen_ai_execute_tool_duration_seconds_count"
    assert total(samples, name, gen_ai_tool_name="github.comment") == 1
    assert total(samples, "gen_ai_client_operation_duration_seconds_count") == 0
    assert total(samples, "interlock_cost_dollars_total") == 0


def test_an_attempt_that_failed_is_told_with_what_went_wrong() -> None:
    telemetry = Telemetry()
    telemetry.observe(model_call(outcome=Outcome.RELEASED, code=Code.PROVIDER_BUSY, usage=None))
    telemetry.observe(model_call(outcome=Outcome.UNKNOWN, code=None))
    samples = scrape(telemetry)
    name = "gen_ai_client_operation_duration_seconds_count"
    assert total(samples, name, error_type="provider_busy") == 1
    assert total(samples, name, error_type="unknown") == 1
    assert total(samples, "gen_ai_server_time_to_first_token_seconds_count") == 0
    assert total(samples, "gen_ai_client_token_usage_count") == 0
    assert total(samples, "interlock_refusals_total") == 0
    # A lost answer is paid for: its worst case is in the ledger, so it is here.
    assert total(samples, "interlock_calls_total", outcome="unknown") == 1
    assert total(samples, "interlock_cost_dollars_total") == 2.5


@pytest.mark.parametrize("code", list(Code))
def test_every_refusal_shows_up_under_its_code(code: Code) -> None:
    telemetry = Telemetry()
    telemetry.observe(refusal(code, rule="month"))
    samples = scrape(telemetry)
    named = {"code": str(code), "rule": "month", "agent": "triage", "team": "platform"}
    assert total(samples, "interlock_refusals_total", **named) == 1
    assert total(samples, "interlock_refusals_total") == 1
    assert total(samples, "interlock_calls_total", outcome="refused") == 1


def test_a_stranger_is_counted_without_a_name() -> None:
    telemetry = Telemetry()
    telemetry.observe(refusal(Code.UNAUTHENTICATED, who=None))
    assert total(scrape(telemetry), "interlock_refusals_total", agent="", team="") == 1


def test_an_answer_from_store_takes_no_time_of_a_provider() -> None:
    telemetry = Telemetry()
    for outcome in (Outcome.CACHED, Outcome.REPLAYED):
        telemetry.observe(model_call(outcome=outcome, usage=None, cost_nano=NanoUSD(0)))
    samples = scrape(telemetry)
    assert total(samples, "interlock_calls_total", outcome="cached") == 1
    assert total(samples, "interlock_calls_total", outcome="replayed") == 1
    assert total(samples, "gen_ai_client_operation_duration_seconds_count") == 0


def test_what_guardrails_found_and_audits_would_have_refused_is_counted_by_rule() -> None:
    telemetry = Telemetry()
    telemetry.observe(model_call())
    samples = scrape(telemetry)
    assert total(samples, "interlock_guardrail_findings_total", rule="pii") == 2
    assert total(samples, "interlock_guardrail_findings_total", rule="secrets") == 1
    assert total(samples, "interlock_audit_hits_total", rule="quiet-limit") == 1


def test_live_runs_and_evals_are_told_apart() -> None:
    telemetry = Telemetry()
    telemetry.observe(model_call(who=principal(purpose=Purpose.EVAL)))
    samples = scrape(telemetry)
    assert total(samples, "interlock_calls_total", purpose="eval") == 1
    assert total(samples, "interlock_calls_total", purpose="live") == 0


def test_ten_thousand_runs_make_no_series_of_their_own() -> None:
    telemetry = Telemetry()
    telemetry.observe(model_call("run-0"))
    telemetry.observe(refusal(Code.UNKNOWN_MODEL, "run-0"))
    before = len(scrape(telemetry))
    for number in range(10_000):
        telemetry.observe(model_call(f"run-{number}", asked=f"whatever-{number}"))
        telemetry.observe(refusal(Code.UNKNOWN_MODEL, f"run-{number}", asked=f"odd-{number}"))
    assert len(scrape(telemetry)) == before
    assert b"run-" not in telemetry.metrics()
    assert b"odd-" not in telemetry.metrics()


def test_more_agents_than_there_is_room_for_are_counted_together() -> None:
    telemetry = Telemetry(most=50)
    for number in range(1000):
        who = principal(agent=AgentName(f"agent-{number}"))
        telemetry.observe(model_call(who=who, model_id=f"model-{number}"))
        telemetry.observe(refusal(Code.STOPPED, who=who))
    samples = scrape(telemetry)
    assert total(samples, "interlock_calls_total") == 2000
    assert total(samples, "interlock_cost_dollars_total") == 1250
    assert total(samples, "interlock_refusals_total", code="stopped") == 1000
    assert total(samples, "interlock_refusals_total", code="stopped", agent=OTHER) == 950
    assert total(samples, "gen_ai_client_operation_duration_seconds_count") == 1000
    assert total(samples, "interlock_telemetry_folded_total") > 0
    series = {key for key in samples if key[0] == "interlock_calls_total"}
    assert len(series) <= 60


def test_nothing_is_lost_when_many_threads_observe_and_scrape() -> None:
    telemetry = Telemetry()
    go = threading.Barrier(9)

    def observe() -> None:
        go.wait()
        for _ in range(2000):
            telemetry.observe(model_call())
            telemetry.observe_commit(4, 0.001)

    with ThreadPoolExecutor(9) as pool:
        running = [pool.submit(observe) for _ in range(8)]
        go.wait()
        while not all(each.done() for each in running):
            scrape(telemetry)
    for each in running:
        each.result()
    samples = scrape(telemetry)
    assert total(samples, "interlock_calls_total") == 16_000
    assert total(samples, "gen_ai_client_operation_duration_seconds_count") == 16_000
    assert total(samples, "interlock_commit_size_sum") == 64_000


def test_readings_are_asked_at_each_scrape() -> None:
    open_now = [3]
    telemetry = Telemetry()
    telemetry.watch(
        Readings(
            reservations=lambda: open_now[0],
            budgets=lambda: [
                BudgetLevel("month", 80_000_000_000, 100_000_000_000),
                BudgetLevel("each", 1, None, agent="triage"),
            ],
            waiting=lambda: {"cloud": 12},
            breakers=lambda: {"fast": "open", "slow": "closed"},
            last_tick=lambda: Millis(1_763_000_000_500),
        )
    )
    samples = scrape(telemetry)
    assert total(samples, "interlock_reservations_open") == 3
    assert total(samples, "interlock_budget_spent_dollars", rule="month") == 80
    assert total(samples, "interlock_budget_limit_dollars") == 100
    assert total(samples, "interlock_queue_waiting", provider="cloud") == 12
    assert total(samples, "interlock_breaker_state", model="fast", state="open") == 1
    assert total(samples, "interlock_breaker_state", model="slow", state="open") == 0
    assert total(samples, "interlock_breaker_state", model="slow", state="closed") == 1
    last = "interlock_reconciler_last_tick_timestamp_seconds"
    assert total(samples, last) == 1_763_000_000.5
    open_now[0] = 4
    assert total(scrape(telemetry), "interlock_reservations_open") == 4


def test_a_reading_that_fails_is_left_out_and_counted() -> None:
    def broken() -> int:
        raise RuntimeError("no database")

    telemetry = Telemetry()
    telemetry.watch(Readings(reservations=broken, waiting=lambda: {"cloud": 1}))
    samples = scrape(telemetry)
    assert ("interlock_reservations_open", ()) not in samples
    assert total(samples, "interlock_queue_waiting") == 1
    assert total(samples, "interlock_telemetry_faults_total") == 1


def test_the_process_tells_its_own_size() -> None:
    samples = scrape(Telemetry())
    assert total(samples, "process_resident_memory_bytes") > 1_000_000
    assert total(samples, "process_open_fds") > 0
    assert total(samples, "process_cpu_seconds_total") > 0


def test_an_observation_that_cannot_be_told_fails_no_call() -> None:
    telemetry = Telemetry()
    telemetry.observe(None)  # type: ignore[arg-type]
    assert total(scrape(telemetry), "interlock_telemetry_faults_total") == 1


def test_the_content_type_is_that_of_the_text_form() -> None:
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_labels_are_escaped_and_read_back_as_they_were() -> None:
    telemetry = Telemetry()
    name = 'a "quoted\\ name"\nof two lines'
    telemetry.observe(model_call(who=principal(agent=AgentName(name))))
    assert total(scrape(telemetry), "interlock_calls_total", agent=name) == 1


@given(st.text(min_size=8, alphabet=st.characters(min_codepoint=33, max_codepoint=126)))
def test_a_known_secret_never_is_a_label(secret: str) -> None:
    telemetry = Telemetry(Redactor([secret]))
    who = principal(agent=AgentName(f"x{secret}y"))
    telemetry.observe(model_call(who=who, target=secret, findings=((secret, 1),)))
    telemetry.observe(refusal(Code.STOPPED, who=who, rule=secret))
    named = ("agent", "model", "rule")
    values = {v for _, labels in scrape(telemetry) for n, v in labels if n in named}
    assert not any(secret in value.replace(REDACTED, "") for value in values)
    assert REDACTED in values


def test_nothing_of_opentelemetry_is_loaded_unless_spans_are_on() -> None:
    script = (
        "import sys; from gateway.telemetry import Telemetry; Telemetry().metrics();"
        "print([m for m in sys.modules if m.startswith(('opentelemetry', 'google.protobuf'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
