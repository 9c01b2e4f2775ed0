"""Tokens, revocation, stops, and the policy that is current."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import access, schema
from gateway.access import epoch
from gateway.access.directory import Directory
from gateway.database import Database, Transaction
from gateway.policy import AgentPolicy, Grants, Limits, Policy, effective
from gateway.refusals import Code, Refusal
from gateway.values import AgentName, Millis, NanoUSD, Purpose, ReleaseDigest, RunId
from tests.gateway.stage import FAR, NOW, ceiling, grants, policy, principal


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[Transaction]:
    database = Database(tmp_path / "ledger.sqlite")
    database.migrate(schema.MIGRATIONS)
    with database.transaction() as opened:
        yield opened
    database.close()


def issue(tx: Transaction, token: str = "t", run: str = "run-1") -> str:
    return access.issue(tx, principal(run), grants(), None, token=token, now=NOW, expires_at=FAR)


def refusal(tx: Transaction, token_hash: str, now: Millis = NOW) -> Refusal:
    with pytest.raises(Refusal) as caught:
        Directory().standing(tx, token_hash, now)
    return caught.value


def caller(tx: Transaction, token_hash: str, now: Millis = NOW) -> access.Caller:
    return Directory().standing(tx, token_hash, now).who


def test_a_token_stands_for_its_principal_and_is_not_stored(tx: Transaction) -> None:
    found = caller(tx, issue(tx, "very-secret"))
    assert found.principal == principal()
    assert found.grants == grants()
    assert "very-secret" not in str(tx.read("SELECT * FROM tokens"))


def test_unknown_and_expired_tokens_are_refused(tx: Transaction) -> None:
    assert refusal(tx, access.hash_token("x")).code is Code.UNAUTHENTICATED
    assert refusal(tx, issue(tx), FAR).code is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    "what",
    [
        {"run": RunId("run-1")},
        {"release": ReleaseDigest("rel-000000000001")},
        {"agent": AgentName("triage")},
    ],
)
def test_revocation_works_by_run_release_or_agent_and_says_why(
    tx: Transaction, what: dict[str, str]
) -> None:
    token = issue(tx)
    assert access.revoke(tx, why="harm", now=NOW, **what) == 1  # type: ignore[arg-type]
    refused = refusal(tx, token)
    assert refused.code is Code.REVOKED
    assert "harm" in refused.message


def test_revoking_one_run_leaves_the_others(tx: Transaction) -> None:
    issue(tx, "one", "run-1")
    other = issue(tx, "two", "run-2")
    access.revoke(tx, run=RunId("run-1"), why="x", now=NOW)
    assert caller(tx, other).principal.run == "run-2"


def test_issuing_a_revoked_token_again_does_not_bring_it_back(tx: Transaction) -> None:
    token = issue(tx)
    access.revoke(tx, run=RunId("run-1"), why="x", now=NOW)
    issue(tx)
    assert refusal(tx, token).code is Code.REVOKED


def test_revoke_needs_exactly_one_thing_to_revoke(tx: Transaction) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        access.revoke(tx, why="x", now=NOW)


@pytest.mark.parametrize("agent", ["triage", "*"])
def test_a_stop_refuses_until_it_is_lifted_or_expires(tx: Transaction, agent: str) -> None:
    token = issue(tx)
    access.stop(tx, agent, reason="pager", actor="ann", now=NOW, expires_at=Millis(NOW + 1000))
    refused = refusal(tx, token)
    assert refused.code is Code.STOPPED
    assert "ann" in refused.message
    assert "pager" in refused.message
    assert caller(tx, token, Millis(NOW + 1000))
    assert access.unstop(tx, agent)
    assert caller(tx, token)


def test_a_stop_of_another_agent_does_not_matter(tx: Transaction) -> None:
    access.stop(tx, "other", reason="r", actor="a", now=NOW)
    assert caller(tx, issue(tx))


def put(tx: Transaction, **ceilings: AgentPolicy) -> int:
    return access.put_ceilings(tx, {AgentName(name): each for name, each in ceilings.items()})


def rights(tx: Transaction, token_hash: str) -> Grants:
    return Directory().standing(tx, token_hash, NOW).grants


def test_there_is_no_policy_before_one_is_published(tx: Transaction) -> None:
    with pytest.raises(Refusal, match="no policy"):
        access.current_policy(tx)
    digest = access.publish(tx, policy(), now=NOW)
    assert access.current_policy(tx) == (digest, policy())


def test_rights_shrink_with_the_agents_ceiling_at_once(tx: Transaction) -> None:
    token = issue(tx)
    assert rights(tx, token).models == (), "without a ceiling nothing may be done"
    put(tx, triage=ceiling())
    assert "fast" in rights(tx, token).models
    put(tx, triage=ceiling(models=("smart",)))
    assert rights(tx, token).models == ("smart",)
    assert access.drop_ceilings(tx, [AgentName("triage"), AgentName("nobody")]) == 1
    assert rights(tx, token) == effective(grants(), None)


def test_a_role_that_the_ceiling_does_not_know_may_do_nothing(tx: Transaction) -> None:
    put(tx, triage=ceiling())
    maker = access.issue(
        tx, principal(role="fixer"), grants(), None, token="f", now=NOW, expires_at=FAR
    )
    assert rights(tx, maker) == effective(grants(), None)


def test_a_ceiling_is_written_only_where_it_differs(tx: Transaction) -> None:
    other = ceiling(models=("smart",))
    assert put(tx, triage=ceiling(), notes=other) == 2
    assert put(tx, triage=ceiling(), notes=other) == 0
    assert put(tx, triage=other, notes=other) == 1
    assert access.agent_policy(tx, "triage") == other
    assert access.with_ceiling(tx) == {"triage", "notes"}


def recorded_run(tx: Transaction, purpose: Purpose, recorded: list[dict[str, Any]] | None) -> str:
    who = principal(f"run-{purpose}-{recorded is None}", purpose=purpose)
    return access.issue(tx, who, grants(), recorded, token=str(who.run), now=NOW, expires_at=FAR)


def test_an_eval_in_its_recorded_world_has_its_tools_whatever_the_ceiling(tx: Transaction) -> None:
    capped = Limits(max_cost=NanoUSD(5))
    put(tx, triage=ceiling(models=("smart",), tools={}, limits=capped))
    sealed = recorded_run(tx, Purpose.EVAL, [])
    assert rights(tx, sealed).tools == grants().tools
    assert rights(tx, sealed).models == ("smart",)
    assert rights(tx, sealed).limits == capped
    for open_world in (
        recorded_run(tx, Purpose.EVAL, None),
        recorded_run(tx, Purpose.LIVE, []),
        recorded_run(tx, Purpose.LIVE, None),
    ):
        assert rights(tx, open_world).tools == {}


def test_an_eval_without_a_ceiling_may_do_nothing(tx: Transaction) -> None:
    assert rights(tx, recorded_run(tx, Purpose.EVAL, [])) == effective(grants(), None)


def test_publishing_an_earlier_policy_again_makes_it_current(tx: Transaction) -> None:
    first = access.publish(tx, policy(), now=NOW)
    access.publish(tx, Policy(), now=NOW)
    assert access.publish(tx, policy(), now=NOW) == first
    assert access.current_policy(tx)[0] == first


def test_a_socket_is_only_opened_for_a_token_of_its_run(tx: Transaction) -> None:
    token = issue(tx)
    with pytest.raises(Refusal, match="belongs to run-1"):
        access.open_socket(tx, RunId("run-2"), token, now=NOW)
    with pytest.raises(Refusal, match="unknown token"):
        access.open_socket(tx, RunId("run-1"), access.hash_token("x"), now=NOW)
    access.open_socket(tx, RunId("run-1"), token, now=NOW)
    assert access.sockets(tx, now=NOW) == [("run-1", token)]
    access.revoke(tx, run=RunId("run-1"), why="x", now=NOW)
    assert access.sockets(tx, now=NOW) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda tx: access.revoke(tx, run=RunId("run-1"), why="x", now=NOW),
        lambda tx: access.stop(tx, "triage", reason="r", actor="a", now=NOW),
        lambda tx: access.unstop(tx, "triage"),
        lambda tx: access.publish(tx, Policy(), now=NOW),
        lambda tx: access.put_ceilings(tx, {AgentName("triage"): ceiling(models=())}),
        lambda tx: access.drop_ceilings(tx, [AgentName("triage")]),
    ],
)
def test_whatever_changes_what_a_call_may_do_moves_the_epoch(tx: Transaction, change: Any) -> None:
    before = epoch.current(tx)
    change(tx)
    assert epoch.current(tx) > before


def test_a_new_token_and_an_unchanged_ceiling_do_not(tx: Transaction) -> None:
    put(tx, triage=ceiling())
    before = epoch.current(tx)
    issue(tx, "another", "run-9")
    put(tx, triage=ceiling())
    assert epoch.current(tx) == before


def test_the_directory_believes_its_memory_until_the_epoch_moves(tx: Transaction) -> None:
    token = issue(tx)
    put(tx, triage=ceiling())
    directory = Directory()
    directory.refresh(tx)
    assert directory.standing(tx, token, NOW).grants.models
    tx.execute("DELETE FROM ceilings")
    assert directory.standing(tx, token, NOW).grants.models, "nobody said that it changed"
    assert not directory.refresh(tx)
    put(tx, triage=ceiling(models=("smart",)))
    assert directory.refresh(tx)
    assert directory.standing(tx, token, NOW).grants.models == ("smart",)


def test_a_token_expires_and_a_stop_ends_without_any_move(tx: Transaction) -> None:
    token = issue(tx)
    access.stop(tx, "*", reason="r", actor="a", now=NOW, expires_at=Millis(NOW + 10))
    directory = Directory()
    directory.refresh(tx)
    with pytest.raises(Refusal, match="stopped"):
        directory.standing(tx, token, NOW)
    assert directory.standing(tx, token, Millis(NOW + 10))
    with pytest.raises(Refusal, match="expired"):
        directory.standing(tx, token, FAR)


def test_who_calls_from_outside_a_run_may_what_is_declared_today(tx: Transaction) -> None:
    who = principal("ext-1", agent="user:ann", release=access.NO_RELEASE, user="ann", tags=("a",))
    token = access.issue(tx, who, Grants(), None, token="o", now=NOW, expires_at=FAR)
    assert caller(tx, token).principal == who
    assert rights(tx, token) == effective(Grants(), None)
    access.put_ceilings(tx, {AgentName("user:ann"): ceiling(models=("fast",))})
    assert rights(tx, token).models == ("fast",)
