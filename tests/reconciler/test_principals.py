"""People and services that call from outside a run: declared like agents, held to the same."""

# ruff: noqa: E501 - tables read better with one row a line

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway import access
from gateway.access.directory import Directory
from gateway.policy import AgentPolicy, Limits
from gateway.refusals import Code, Refusal
from gateway.values import AgentName, Millis
from reconciler.approvals.restore import restored
from reconciler.cli import interlock
from reconciler.config import Loaded
from reconciler.config.policy import external
from reconciler.config.secrets import secret_kind
from reconciler.fleet.who import who_touches
from reconciler.operations import Refused, oncall, tokens
from reconciler.operations import approvals as deciding
from reconciler.operations.approvals import approve
from reconciler.plan.directions import compare
from reconciler.plan.sides import units_of
from tests.support.config_world import ConfigWorld
from tests.support.small_fleet import edited, fleet, loaded, tree

FILE = "gateway/principals.yaml"
INES = AgentName("user:ines")
TOKEN = "t" * 43
DAY = 86_400_000


def declared(text: str, **more: str) -> Loaded:
    return loaded(tree({FILE: f"principals:\n  - {{{text}}}\n", **more}))


PERSON = "name: ines, kind: person, team: payments"


def test_a_person_is_known_as_an_agent_that_no_agent_can_be_called() -> None:
    result = declared(
        f"{PERSON}, models: [smart], servers: [{{name: tracker, tools: [open, list], "
        "args: {project: northwind-*}}], limits: {max_output_tokens: 100}, tags: [b, a]"
    )
    assert result.fleet is not None, result.findings
    (ines,) = result.fleet.principals.values()
    assert (ines.name, ines.team, ines.tags) == (INES, "payments", ("a", "b"))
    found = external(ines, result.fleet.platform)
    assert isinstance(found, AgentPolicy)
    main = found.roles["main"]
    assert main.models == ("large", "small", "smart")
    assert {name: tool.args for name, tool in main.tools.items()} == {
        "tracker.list": {"project": ("northwind-*",)},
        "tracker.open": {"project": ("northwind-*",)},
    }
    assert main.limits == Limits(max_output_tokens=100)
    taken = loaded(edited("agents/triage/agent.yaml", "name: triage", 'name: "user:ines"'))
    assert list(taken.fleet.agents if taken.fleet else ()) == []


@pytest.mark.parametrize(
    "text, message",
    [
        (f"{PERSON}, models: [smrt]", '2:57 model "smrt" is not defined; did you mean "smart"?'),
        (f"{PERSON}, servers: [trackr]", '2:58 server "trackr" is not defined'),
        (f"{PERSON}, servers: [{{name: tracker, tools: [opn]}}]", 'declares no tool "opn"'),
        ("name: x, kind: service, team: nobody, models: [smart]", 'team "nobody" is not defined'),
        (PERSON, "give models, servers or both"),
        ('name: "a:b", kind: person, team: payments, models: [smart]', "not a valid name: use letters"),
        ("name: ines, kind: robot, team: payments, models: [smart]", "person or service"),
        (f"{PERSON}, models: [smart], limits: {{max_cost: 3}}", "write a budget with agent: user:NAME"),
        (f"{PERSON}, models: [smart], token: abc", "`interlock token new` makes one"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_an_error_where_it_stands(text: str, message: str) -> None:
    result = declared(text)
    assert result.fleet is None
    assert any(message in str(f) and f.file == FILE for f in result.findings), result.findings


def test_a_name_is_taken_once_in_all_files() -> None:
    again = {"gateway/more.yaml": f"principals:\n  - {{{PERSON}, models: [small]}}\n"}
    result = declared(f"{PERSON}, models: [smart]", **again)
    assert [f.id for f in result.findings] == ["duplicate-name"]


def test_the_team_that_answers_may_name_it_or_it_is_an_error() -> None:
    teams = "teams:\n  payments: {members: [ines], uses: {models: [large, smart], servers: [x]}}\n"
    result = declared(f"{PERSON}, models: [small], servers: [tracker]", **{"teams.yaml": teams})
    assert [f.id for f in result.findings if f.file == FILE] == ["not-allowed", "not-allowed"]


def test_what_the_fleet_wants_approved_nobody_may_call_from_outside() -> None:
    result = loaded(
        edited(
            "interlock.yaml",
            "    rollout: standard\n",
            "    rollout: standard\n    approvals: [open]\n",
            **{FILE: f"principals:\n  - {{{PERSON}, servers: [tracker]}}\n"},
        )
    )
    assert result.fleet is not None, result.findings
    tools = result.fleet.principals[INES].tools
    assert {name: tool.approval for name, tool in tools.items()} == {
        "tracker.list": False,
        "tracker.open": True,
    }


def test_a_destructive_tool_must_be_named() -> None:
    result = declared(f"{PERSON}, servers: [tracker]")
    assert result.fleet is not None
    assert set(result.fleet.principals[INES].tools) == {"tracker.list", "tracker.open"}


def test_who_touches_a_tool_tells_of_people_too() -> None:
    result = declared(f"{PERSON}, models: [smart], servers: [tracker]")
    assert result.fleet is not None
    assert INES in {touch.agent for touch in who_touches(result.fleet, "tracker.open")}
    assert INES in {touch.agent for touch in who_touches(result.fleet, "model:small")}


# --- the plan


@pytest.mark.parametrize(
    "before, after, looser",
    [
        ({"models": ["a"]}, {"models": ["a", "b"]}, True),
        ({"models": ["a", "b"]}, {"models": ["a"]}, False),
        ({"tools": ["s.a"], "args": {"s.a": {}}},
         {"tools": ["s.a", "s.b"], "args": {"s.a": {}, "s.b": {}}}, True),
        ({"tools": ["s.a", "s.b"], "args": {"s.a": {}, "s.b": {"x": ["1"]}}},
         {"tools": ["s.a"], "args": {"s.a": {}}}, False),
        ({"args": {"s.a": {"x": ["1*"]}}}, {"args": {"s.a": {"x": ["*"]}}}, True),
        ({"args": {"s.a": {"x": ["1"]}}}, {"args": {"s.a": {}}}, True),
        ({"args": {"s.a": {}}}, {"args": {"s.a": {"x": ["1"]}}}, False),
        ({"approvals": ["s.a"]}, {"approvals": []}, True),
        ({"max_output_tokens": 10}, {"max_output_tokens": None}, True),
        ({"max_output_tokens": None}, {"max_output_tokens": 10}, False),
        ({"tags": ["a"]}, {"tags": []}, True),
        ({"tags": []}, {"tags": ["a"]}, False),
        ({"team": "a"}, {"team": "b"}, True),
    ],
)  # fmt: skip
def test_more_reach_is_looser(before: dict, after: dict, looser: bool) -> None:  # type: ignore[type-arg]
    found = compare("principal", before, after)
    assert found
    assert any(one.looser for one in found) is looser


def test_one_that_waits_is_put_back_as_it_was() -> None:
    before = declared(
        f"{PERSON}, models: [smart], servers: [{{name: tracker, tools: [open], args: "
        "{project: a-*}}], tags: [x], limits: {max_output_tokens: 5}"
    ).fleet
    after = declared(f"{PERSON}, models: [smart, small], servers: [tracker]").fleet
    assert before is not None
    assert after is not None
    live = {name: unit.value for name, unit in units_of(before).items()}
    back = restored(after, live, {f"principal/{INES}"})
    assert back.principals == before.principals
    assert restored(after, {}, {f"principal/{INES}"}).principals == {}
    assert fleet().principals == {}


# --- in force


@pytest.fixture
def world(tmp_path: Path) -> ConfigWorld:
    return ConfigWorld.settled(tmp_path)


def _ceiling(world: ConfigWorld, name: str = INES) -> AgentPolicy | None:
    with world.database.snapshot() as tx:
        return access.agent_policy(tx, name)


def _admitted(world: ConfigWorld) -> None:
    """Ines is declared, and the owners of the file have said yes."""
    world.push({FILE: f"principals:\n  - {{{PERSON}, models: [smart, small], tags: [batch]}}\n"})
    world.settle()
    (waiting,) = deciding.listed(world.context)
    approve(world.context, waiting.id, reason="she asked", actor="mara")
    world.settle()


def test_a_new_one_waits_for_the_owners_of_the_file_and_may_nothing_before(
    world: ConfigWorld,
) -> None:
    world.push({FILE: f"principals:\n  - {{{PERSON}, models: [smart]}}\n"})
    world.settle()
    assert world.waiting() == [f"principal/{INES}"]
    assert _ceiling(world) is None
    (waiting,) = deciding.listed(world.context)
    with pytest.raises(Refused):
        approve(world.context, waiting.id, reason="me", actor="ines")
    approve(world.context, waiting.id, reason="she asked", actor="mara")
    world.settle()
    found = _ceiling(world)
    assert found is not None
    assert found.roles["main"].models == ("large", "small", "smart")


def test_it_stays_while_agents_move_and_goes_with_its_declaration(world: ConfigWorld) -> None:
    _admitted(world)
    world.push({"agents/notes/notes.md": "Write down what changed, in order.\n"})
    world.settle()
    assert _ceiling(world) is not None
    world.restart()
    world.settle()
    assert _ceiling(world) is not None
    world.push({FILE: None})
    world.settle()
    assert world.waiting() == []
    assert _ceiling(world) is None


# --- tokens


def _new(world: ConfigWorld, name: str = "ines", **given: object) -> str:
    return tokens.new(
        world.database,
        world.clock,
        name,
        token=TOKEN,
        expires_in_ms=30 * DAY,
        actor="mara",
        **given,  # type: ignore[arg-type]
    ).subject


def test_a_token_speaks_for_somebody_until_it_is_taken_back(world: ConfigWorld) -> None:
    _admitted(world)
    identity = _new(world)
    hashed, now = access.hash_token(TOKEN), world.clock.now()
    with world.database.snapshot() as tx:
        who = Directory().standing(tx, hashed, now).who
        (listed,) = tokens.listing(tx)
    assert (who.principal.run, who.principal.agent) == (f"ext-{identity}", INES)
    assert (who.principal.role, who.principal.release) == ("main", "rel-none")
    assert who.principal.occurrence == f"token:{identity}"
    assert (who.principal.user, who.principal.tags) == ("ines", ("batch",))
    assert who.grants.models == ("large", "small", "smart")
    assert (listed.principal, listed.user, listed.state(now)) == (INES, "ines", "active")
    assert listed.state(Millis(now + 31 * DAY)) == "expired"
    tokens.revoke(world.database, world.clock, identity, reason="left", actor="mara")
    with world.database.snapshot() as tx, pytest.raises(Refusal) as refused:
        Directory().standing(tx, hashed, now)
    assert refused.value.code is Code.REVOKED
    with pytest.raises(Refused, match="taken back already: left"):
        tokens.revoke(world.database, world.clock, identity, reason="again", actor="mara")


def test_what_a_token_may_reach_follows_the_declaration(world: ConfigWorld) -> None:
    _admitted(world)
    _new(world)
    world.push({FILE: f"principals:\n  - {{{PERSON}, models: [small], tags: [batch]}}\n"})
    world.settle()
    assert world.waiting() == []
    with world.database.snapshot() as tx:
        standing = Directory().standing(tx, access.hash_token(TOKEN), world.clock.now())
    assert standing.grants.models == ("small",)


def test_the_token_itself_is_nowhere_and_each_deed_is_in_the_audit(world: ConfigWorld) -> None:
    _admitted(world)
    identity = _new(world)
    tokens.revoke(world.database, world.clock, identity, reason="left", actor="mara")
    with world.database.snapshot() as tx:
        lines = [dict(row) for row in tx.read("SELECT * FROM audit WHERE action LIKE 'token.%'")]
        kept = str([dict(row) for row in tx.read("SELECT * FROM tokens")])
    assert [(line["action"], line["actor"], line["subject"]) for line in lines] == [
        ("token.issued", "mara", identity),
        ("token.revoked", "mara", identity),
    ]
    assert lines[0]["reason"] == "user:ines for ines, expires in 30d"
    assert TOKEN not in kept + str(lines)


def test_issuing_one_does_not_take_the_rights_away_at_the_next_tick(world: ConfigWorld) -> None:
    _admitted(world)
    _new(world)
    world.settle()
    assert _ceiling(world) is not None
    oncall.stop(world.database, world.clock, (INES,), reason="a leak", actor="mara")
    world.settle()
    assert _ceiling(world) is not None
    with world.database.snapshot() as tx, pytest.raises(Refusal) as refused:
        Directory().standing(tx, access.hash_token(TOKEN), world.clock.now())
    assert refused.value.code is Code.STOPPED


def test_only_who_is_in_force_gets_one(world: ConfigWorld) -> None:
    with pytest.raises(Refused, match=r"none; declare them in gateway/principals\.yaml"):
        _new(world)
    world.push({FILE: f"principals:\n  - {{{PERSON}, models: [smart]}}\n"})
    world.settle()
    with pytest.raises(Refused, match="nobody from outside is called"):
        _new(world)  # it waits


def test_a_persons_token_is_for_that_person_only(world: ConfigWorld) -> None:
    _admitted(world)
    with pytest.raises(Refused, match="--for-user is for services"):
        _new(world, user="tom")


def test_a_name_that_two_have_must_be_written_in_full(world: ConfigWorld) -> None:
    service = "name: ines, kind: service, team: payments, models: [small]"
    world.push({FILE: f"principals:\n  - {{{PERSON}, models: [smart]}}\n  - {{{service}}}\n"})
    world.settle()
    for waiting in deciding.listed(world.context):
        approve(world.context, waiting.id, reason="fine", actor="mara")
    world.settle()
    with pytest.raises(Refused, match="service:ines and user:ines"):
        _new(world)
    _new(world, "service:ines", user="tom")


@pytest.fixture
def command(world: ConfigWorld, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`interlock token …` beside a reconciler that works on the world's state."""
    _admitted(world)
    monkeypatch.setattr(
        "reconciler.process.oncall.act", lambda _options, _environment, do, **_: do(world.context)
    )
    monkeypatch.setattr("gateway.clock.SystemClock.from_environment", lambda _: world.clock)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(interlock, ["token", *arguments, "--state", str(world.at)])

    return call


def test_the_command_prints_a_token_once_and_alone_on_stdout(
    command: Callable[..., Result],
) -> None:
    made = command("new", "user:ines", "--expires", "12h", "--as", "mara")
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    assert secret_kind(token) == "a token of this gateway"
    identity = access.hash_token(token)[:16]
    assert f"interlock token revoke {identity}" in made.stderr
    listed = command("list")
    assert identity in listed.output
    assert token not in listed.output
    assert command("revoke", identity, "--as", "mara").exit_code == 0
    assert "there is no token" in command("list").output
    assert "revoked" in command("list", "--all").output
    assert command("revoke", identity).exit_code == 1


def test_a_duration_that_is_none_is_wrong_usage(command: Callable[..., Result]) -> None:
    assert command("new", "ines", "--expires", "soon").exit_code == 2
