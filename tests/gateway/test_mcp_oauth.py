"""Tokens for tool servers: got once, renewed in time, kept, taken back, and never told."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import access
from gateway.policy import OAuth, SecretRef
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from gateway.values import Millis
from tests.gateway.mcp_world import SECRETS, World
from tests.support.mcp_fake import FakeServer, Say, tool


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with FakeServer() as fake:
        fake.tools = [tool("open"), tool("read")]
        yield World(fake, tmp_path)


def with_oauth(world: World, **changes: Any) -> list[str]:
    """Tokens t1, t2, … for an hour each; returns those that the server takes."""
    given: dict[str, Any] = {
        "token_url": f"{world.fake.address}/token",
        "client_id": "inter lock",
        "client_secret": SecretRef(env="CLIENT"),
        "scopes": ("a", "b"),
    }
    world.set(oauth=OAuth(**{**given, **changes}))
    good: list[str] = []

    def token(form: dict[str, str]) -> Any:
        good.append(f"t{len(world.fake.forms)}")
        return {"access_token": good[-1], "token_type": "Bearer", "expires_in": 3600}

    def call(params: Any, headers: Any) -> Any:
        if headers.get("authorization") != f"Bearer {good[-1]}":
            raise Say(401)
        return {"content": [{"type": "text", "text": headers["authorization"]}]}

    world.fake.token = token
    world.fake.plan["tools/call"] = call
    return good


def test_client_credentials_are_exchanged_once_for_all_who_wait(world: World) -> None:
    with_oauth(world)

    async def play() -> list[str]:
        return await asyncio.gather(*(world.text() for _ in range(5)))

    assert world.run(play) == ["Bearer [redacted]"] * 5
    (form,) = world.fake.forms
    pair = base64.b64encode(b"inter%20lock:client%3ASECRET%2F2").decode()
    assert form == {
        "grant_type": "client_credentials",
        "scope": "a b",
        "_authorization": f"Basic {pair}",
    }


def test_a_token_is_renewed_before_it_runs_out(world: World) -> None:
    with_oauth(world)

    async def play() -> None:
        await world.call()
        world.clock.time += 3_539_000
        await world.call()
        assert len(world.fake.forms) == 1
        world.clock.time += 1_001
        await world.call()

    world.run(play)
    assert len(world.fake.forms) == 2


def test_a_token_that_is_not_taken_is_renewed_once_and_then_given_up(world: World) -> None:
    good = with_oauth(world)

    async def play() -> Failure:
        await world.call()
        good.append("only this one")
        assert await world.text() == "Bearer [redacted]"
        world.fake.plan["tools/call"] = refuse
        return await world.failure()

    def refuse(params: Any, headers: Any) -> Any:
        raise Say(401, b"token t9 is bad")

    failure = world.run(play)
    assert not failure.done
    assert len(world.fake.forms) == 3
    assert world.fake.methods().count("tools/call") == 5
    assert "t9" not in failure.message


def test_calls_that_fail_together_ask_for_one_new_token(world: World) -> None:
    good = with_oauth(world)

    async def play() -> None:
        await world.call()
        good.append("only this one")
        await asyncio.gather(*(world.call() for _ in range(5)))

    world.run(play)
    assert len(world.fake.forms) == 2


def test_a_token_that_was_renewed_meanwhile_is_not_forgotten(world: World) -> None:
    with_oauth(world)

    async def play() -> None:
        tokens = world.servers._tokens
        asked = ("hub", world.server.oauth, None)
        first = await tokens.access(*asked)
        tokens.forget(*asked, first)
        second = await tokens.access(*asked)
        tokens.forget(*asked, first)
        assert await tokens.access(*asked) == second

    world.run(play)


def test_a_rotated_refresh_token_outlives_the_process(world: World) -> None:
    with_oauth(world, refresh_token=SecretRef(env="REFRESH"))
    plain = world.fake.token
    world.fake.token = lambda form: {**plain(form), "refresh_token": f"r{len(world.fake.forms)}"}
    world.run(world.call)
    world.run(world.call)
    sent = [form["refresh_token"] for form in world.fake.forms]
    assert sent == [SECRETS["REFRESH"], "r1"]
    old, SECRETS["REFRESH"] = SECRETS["REFRESH"], "another-one"
    try:
        world.run(world.call)
    finally:
        SECRETS["REFRESH"] = old
    assert world.fake.forms[-1]["refresh_token"] == "another-one", "the operator's word is last"


def delegate(world: World, user: str, token: str) -> None:
    with world.database.transaction() as tx:
        access.delegate(tx, server="hub", user=user, refresh_token=token, now=Millis(1))


def test_whoever_writes_logs_is_told_of_every_token(world: World) -> None:
    with_oauth(world, per_user=True)
    with world.database.transaction() as tx:
        access.delegate(tx, server="hub", user="ann", refresh_token="ann-refresh", now=Millis(1))
    world.user = "ann"
    world.run(world.call)
    assert set(world.found) == {SECRETS["CLIENT"], "ann-refresh", "t1"}


def test_a_server_used_as_a_person_is_used_as_the_runs_person(world: World) -> None:
    with_oauth(world, per_user=True)
    delegate(world, "ann", "ann-refresh")
    delegate(world, "bob", "bob-refresh")

    async def play() -> None:
        for user in ("ann", "bob", "ann"):
            world.user = user
            world.fake.plan["tools/call"] = lambda params, headers: {
                "content": [{"type": "text", "text": headers["authorization"][-2:]}]
            }
            await world.call()

    world.run(play)
    assert [form["refresh_token"] for form in world.fake.forms] == ["ann-refresh", "bob-refresh"]
    sent = [h["authorization"] for m, _, h in world.fake.asked if m == "tools/call"]
    assert sent == ["Bearer t1", "Bearer t2", "Bearer t1"]


def test_a_run_without_a_delegation_is_told_how_to_get_one(world: World) -> None:
    with_oauth(world, per_user=True)

    async def play() -> None:
        assert "for nobody" in (await world.refusal()).message
        world.user = "ann"
        refused = await world.refusal()
        assert refused.code is Code.NO_DELEGATION
        assert "interlock token delegate hub --user ann" in refused.message

    world.run(play)
    assert (world.fake.asked, world.fake.forms) == ([], [])


def test_a_delegation_taken_back_ends_with_the_next_call(world: World) -> None:
    with_oauth(world, per_user=True)
    delegate(world, "ann", "ann-refresh")
    world.user = "ann"

    async def play() -> Refusal:
        await world.call()
        with world.database.transaction() as tx:
            assert access.withdraw(tx, server="hub", user="ann")
        return await world.refusal()

    assert world.run(play).code is Code.NO_DELEGATION


def test_another_delegation_is_used_from_the_next_call_on(world: World) -> None:
    with_oauth(world, per_user=True)
    delegate(world, "ann", "first")
    world.user = "ann"

    async def play() -> None:
        await world.call()
        delegate(world, "ann", "second")
        await world.call()

    world.run(play)
    assert [form["refresh_token"] for form in world.fake.forms] == ["first", "second"]


def test_a_delegation_that_is_no_longer_accepted_is_said_to_be_so(world: World) -> None:
    with_oauth(world, per_user=True)
    delegate(world, "ann", "ann-refresh")
    world.user = "ann"

    def bad(form: Any) -> Any:
        raise Say(400, b'{"error":"invalid_grant","error_description":"ann-refresh is old"}')

    world.fake.token = bad
    refused = world.run(world.refusal)
    assert refused.code is Code.NO_DELEGATION
    assert "ann-refresh" not in refused.message


def test_a_clients_secret_goes_only_to_where_it_may(world: World) -> None:
    with_oauth(world, hosts=("login.example.com",))
    refused = world.run(world.refusal)
    assert "login.example.com only" in refused.message
    assert world.fake.forms == []


def test_an_access_token_goes_only_to_where_it_may(world: World) -> None:
    with_oauth(world)
    world.set(hosts=("tools.example.com",))
    assert "tools.example.com only" in world.run(world.refusal).message
    assert (world.fake.forms, world.fake.asked) == ([], [])


@pytest.mark.parametrize("body", [b"", b"[]", b'{"access_token": 7}', b'{"access_token": ""}'])
def test_an_authorization_server_that_gives_no_token_costs_nothing(
    body: bytes, world: World
) -> None:
    with_oauth(world)

    def bad(form: Any) -> Any:
        raise Say(200, body)

    world.fake.token = bad
    failure = world.run(world.failure)
    assert not failure.done
    assert "no access token" in failure.message


def test_what_an_authorization_server_says_is_not_repeated(world: World) -> None:
    with_oauth(world)

    def bad(form: Any) -> Any:
        raise Say(401, json.dumps({"error": SECRETS["CLIENT"]}).encode())

    world.fake.token = bad
    failure = world.run(world.failure)
    assert SECRETS["CLIENT"] not in failure.message
    assert "HTTP 401" in failure.message
