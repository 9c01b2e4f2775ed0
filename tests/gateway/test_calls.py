"""What the ledger decides by key and by effect key: send, replay, or outcome_unknown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import access, calls, schema
from gateway.budgets import Admission, Rules
from gateway.calls import Ask, Ledger, Next, Settlement, Stored
from gateway.database import Database, Row, Transaction
from gateway.door import Memory
from gateway.refusals import Code, Refusal
from gateway.values import CallKey, EffectKey, Label, NanoUSD
from tests.gateway.stage import NOW, principal

NONE = Rules(())
ledger = Ledger()


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[Transaction]:
    database = Database(tmp_path / "ledger.sqlite")
    database.migrate(schema.MIGRATIONS)
    ledger.forget()
    with database.transaction() as opened:
        yield opened
    database.close()


def ask(key: str = "run-1/1/0", *, repeatable: bool = False, **changes: object) -> Ask:
    parsed = CallKey.parse(key)
    values = {
        "key": parsed,
        "principal": principal(parsed.run),
        "kind": "tool",
        "asked": "effects.write",
        "request_hash": "h",
        "policy": "p",
        "repeatable": repeatable,
        "changes": True,
    }
    return Ask(**{**values, **changes})  # type: ignore[arg-type]


def stand(tx: Transaction, asked: Ask, *live: str) -> Stored | Next | Refusal:
    keys = [CallKey.parse(key) for key in live]
    return calls.standing(tx, ledger, asked, live=keys, rules=NONE, now=NOW)


def reserve(tx: Transaction, asked: Ask) -> Row:
    stands = stand(tx, asked)
    assert isinstance(stands, Next)
    return ledger.reserve(
        tx,
        asked,
        attempt=stands.attempt,
        effect_key=stands.effect_key,
        target=asked.asked,
        admission=Admission(0, 0, 0),
        price_table=None,
        label=Label(),
        rules=NONE,
        now=NOW,
    )


def settle(tx: Transaction, row: Row) -> None:
    ledger.settle(
        tx,
        row,
        Settlement(NanoUSD(0)),
        response='{"n": 1}',
        label=Label(),
        over=(),
        rules=NONE,
        now=NOW,
    )


def test_an_absent_key_is_sent_with_the_next_effect_key(tx: Transaction) -> None:
    who = principal()
    expected = str(EffectKey(who.agent, who.occurrence, "effects.write", 0))
    assert stand(tx, ask()) == Next(0, expected)


def test_a_settled_key_is_replayed(tx: Transaction) -> None:
    settle(tx, reserve(tx, ask()))
    stored = stand(tx, ask())
    assert isinstance(stored, Stored)
    assert stored.row["response"] == '{"n": 1}'


def test_another_request_under_a_used_key_is_refused(tx: Transaction) -> None:
    settle(tx, reserve(tx, ask()))
    refused = stand(tx, ask(request_hash="other"))
    assert isinstance(refused, Refusal)
    assert refused.code is Code.REQUEST_MISMATCH


def test_a_reservation_nobody_carries_out_is_charged_and_unknown(tx: Transaction) -> None:
    reserve(tx, ask())
    refused = stand(tx, ask())
    assert isinstance(refused, Refusal)
    assert refused.code is Code.OUTCOME_UNKNOWN
    ledger.finish(tx)
    (row,) = calls.attempts(tx, ask().key)
    assert row["state"] == "unknown"
    again = stand(tx, ask())
    assert isinstance(again, Refusal)
    assert again.code is Code.OUTCOME_UNKNOWN


def test_a_repeatable_call_gets_a_new_attempt_with_the_same_effect_key(tx: Transaction) -> None:
    first = reserve(tx, ask(repeatable=True))
    assert stand(tx, ask(repeatable=True)) == Next(1, first["effect_key"])


def test_a_released_attempt_leaves_the_key_free(tx: Transaction) -> None:
    row = reserve(tx, ask())
    ledger.release(tx, row, error="refused", rules=NONE, now=NOW)
    ledger.finish(tx)
    assert stand(tx, ask()) == Next(1, row["effect_key"])


def test_the_ordinal_counts_calls_of_the_same_tool_in_the_run(tx: Transaction) -> None:
    first = reserve(tx, ask("run-1/1/0"))
    settle(tx, first)
    other = reserve(tx, ask("run-1/2/0", asked="effects.append"))
    second = reserve(tx, ask("run-1/3/0"))
    who = principal()
    assert second["effect_key"] == str(EffectKey(who.agent, who.occurrence, "effects.write", 1))
    assert other["effect_key"] == str(EffectKey(who.agent, who.occurrence, "effects.append", 0))


def test_an_effect_of_another_run_of_the_occurrence_is_replayed(tx: Transaction) -> None:
    settle(tx, reserve(tx, ask("run-1/1/0")))
    stored = stand(tx, ask("run-2/9/0"))
    assert isinstance(stored, Stored)
    assert stored.row["run"] == "run-1"


def test_an_effect_unknown_elsewhere_is_not_done_again(tx: Transaction) -> None:
    row = reserve(tx, ask("run-1/1/0"))
    ledger.lose(tx, row, error="broke off", rules=NONE, now=NOW)
    refused = stand(tx, ask("run-2/1/0"))
    assert isinstance(refused, Refusal)
    assert refused.code is Code.OUTCOME_UNKNOWN
    assert "run-1/1/0" in refused.message


def test_an_effect_in_flight_elsewhere_in_this_process_is_worth_waiting_for(
    tx: Transaction,
) -> None:
    reserve(tx, ask("run-1/1/0"))
    refused = stand(tx, ask("run-2/1/0"), "run-1/1/0")
    assert isinstance(refused, Refusal)
    assert refused.code is Code.IN_FLIGHT
    assert calls.attempts(tx, ask().key)[0]["state"] == "reserved"


def test_another_occurrence_is_another_effect(tx: Transaction) -> None:
    settle(tx, reserve(tx, ask("run-1/1/0")))
    other = ask("run-2/1/0", principal=principal("run-2", occurrence="manual:2"))
    assert isinstance(stand(tx, other), Next)


def test_recover_turns_every_open_reservation_into_unknown(tx: Transaction) -> None:
    reserve(tx, ask("run-1/1/0"))
    settle(tx, reserve(tx, ask("run-1/2/0")))
    ledger.finish(tx)
    restarted = Ledger()
    assert restarted.recover(tx, rules=NONE, now=NOW) == 1
    restarted.finish(tx)
    assert Ledger().recover(tx, rules=NONE, now=NOW) == 0


def test_an_alert_is_recorded_once(tx: Transaction) -> None:
    for _ in range(2):
        calls.alert(tx, kind="budget", agent="a", identity=("day", 80), text="t", now=NOW)
    assert len(tx.read("SELECT * FROM alerts")) == 1


def test_the_label_of_a_run_rises_with_what_it_was_given(tx: Transaction) -> None:
    who = ask().key.run
    assert str(ledger.label_of(tx, who)) == "untrusted/internal"
    row = reserve(tx, ask())
    secret = Label.parse("trusted/secret")
    ledger.settle(
        tx,
        row,
        Settlement(NanoUSD(0)),
        response="{}",
        label=secret,
        over=(),
        rules=NONE,
        now=NOW,
    )
    assert str(ledger.label_of(tx, who)) == "untrusted/secret"
    ledger.finish(tx)
    assert str(calls.run_label(tx, who)) == "untrusted/secret"


def test_half_a_surrogate_pair_from_the_other_side_does_not_undo_a_whole_group(
    tx: Transaction,
) -> None:
    settled, lost = reserve(tx, ask("run-1/1/0")), reserve(tx, ask("run-1/2/0", changes=False))
    odd = "an emoji cut in half: \ud83d"
    ledger.settle(
        tx,
        settled,
        Settlement(NanoUSD(0)),
        response=odd,
        label=Label(),
        over=(),
        rules=NONE,
        now=NOW,
    )
    ledger.lose(tx, lost, error=odd, rules=NONE, now=NOW)
    ledger.finish(tx)
    ends = {
        (row["state"], row["response"] or row["error"]) for row in tx.read("SELECT * FROM calls")
    }
    assert ends == {(state, odd.replace("\ud83d", "?")) for state in ("settled", "unknown")}


def test_totals_are_looked_up_again_whoever_sees_first_that_another_process_wrote(
    tmp_path: Path,
) -> None:
    database = Database(tmp_path / "memory.sqlite")
    database.migrate(schema.MIGRATIONS)
    memory = Memory()
    with database.transaction() as tx:
        memory.begin(tx)
    seen: list[str] = []
    memory.ledger.refresh = lambda: seen.append("looked")  # type: ignore[method-assign]
    with database.transaction() as tx:
        access.drop_ceilings(tx, ())
    assert memory.directory.refresh(database), "the event loop looks first"
    for _ in range(2):
        with database.transaction() as tx:
            memory.begin(tx)
    assert seen == ["looked"]
    database.close()
