"""`interlock token delegate` and `withdraw`: a person's word for a tool server, given and taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway import access
from gateway.policy import OAuth, Policy, ToolServer
from gateway.values import Millis
from reconciler.cli import interlock
from reconciler.operations import Refused, tokens
from tests.support.config_world import ConfigWorld

SECRET = "refresh-of-ines-SECRET"


@pytest.fixture
def world(tmp_path: Path) -> ConfigWorld:
    """The policy in force has `calendar`, used as a person, and `tracker`, which is not."""
    world = ConfigWorld.settled(tmp_path)
    oauth = OAuth(token_url="https://login.example/token", client_id="me", per_user=True)
    servers = {
        "calendar": ToolServer(url="https://calendar.example/mcp", oauth=oauth),
        "tracker": ToolServer(url="https://tracker.example/mcp"),
    }
    with world.database.transaction() as tx:
        access.publish(tx, Policy(servers=servers), now=Millis(world.clock.now()))
    return world


def delegate(world: ConfigWorld, server: str = "calendar", user: str = "ines", **more: str) -> None:
    token = more.get("token", SECRET)
    database, clock = world.database, world.clock
    tokens.delegate(database, clock, server, user=user, refresh_token=token, actor="mara")


def kept(world: ConfigWorld) -> list[tuple[str, str, str]]:
    rows = world.database.read("SELECT server, person, refresh_token FROM oauth_tokens")
    return [(row["server"], row["person"], row["refresh_token"]) for row in rows]


def audited(world: ConfigWorld) -> list[tuple[str, str, str, str]]:
    rows = world.database.read("SELECT * FROM audit WHERE action LIKE 'token.%' ORDER BY seq")
    return [(row["action"], row["actor"], row["subject"], row["reason"]) for row in rows]


def test_a_delegation_is_kept_until_it_is_withdrawn_and_both_are_in_the_audit(
    world: ConfigWorld,
) -> None:
    delegate(world)
    delegate(world, token="another-SECRET")
    assert kept(world) == [("calendar", "ines", "another-SECRET")]
    tokens.withdraw(world.database, world.clock, "calendar", user="ines", actor="tom")
    assert kept(world) == []
    assert audited(world) == [
        ("token.delegated", "mara", "calendar", "as ines"),
        ("token.delegated", "mara", "calendar", "as ines"),
        ("token.withdrawn", "tom", "calendar", "of ines"),
    ]
    with pytest.raises(Refused, match="ines has not delegated tool server calendar"):
        tokens.withdraw(world.database, world.clock, "calendar", user="ines", actor="tom")


@pytest.mark.parametrize("server", ["tracker", "calender"])
def test_only_a_server_that_is_used_as_a_person_takes_one(world: ConfigWorld, server: str) -> None:
    with pytest.raises(Refused, match=r"per_user: true.*there are: calendar"):
        delegate(world, server)
    assert kept(world) == audited(world) == []


@pytest.mark.parametrize("token", ["", "two words", "two\nlines", "naïve", "bell\x07"])
def test_what_can_be_no_token_is_refused_and_not_repeated(world: ConfigWorld, token: str) -> None:
    with pytest.raises(Refused, match="this is none") as refused:
        delegate(world, token=token)
    assert not token or token not in str(refused.value)


def test_nobody_delegates_nothing(world: ConfigWorld) -> None:
    for user in ("", "ines tom"):
        with pytest.raises(Refused, match="nobody's login"):
            delegate(world, user=user)
    with pytest.raises(Refused, match="has not delegated"):
        tokens.withdraw(world.database, world.clock, "calendar", user="", actor="mara")


@pytest.fixture
def command(world: ConfigWorld, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`interlock token …` beside a reconciler that works on the world's state."""
    monkeypatch.setattr(
        "reconciler.process.oncall.act", lambda _options, _environment, do, **_: do(world.context)
    )

    def call(*arguments: str, said: str | None = None) -> Result:
        given = ["token", *arguments, "--user", "ines", "--state", str(world.at)]
        return CliRunner().invoke(interlock, given, input=said)

    return call


def test_the_command_takes_the_token_from_a_file_standard_input_or_a_hidden_prompt(
    world: ConfigWorld, command: Callable[..., Result], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("from-file-SECRET\n")
    ways = (
        (("--refresh-token-file", str(file)), None, "from-file-SECRET"),
        (("--refresh-token-file", "-"), "from-stdin-SECRET\n", "from-stdin-SECRET"),
        ((), "from-prompt-SECRET\n", "from-prompt-SECRET"),
    )
    for options, said, expected in ways:
        for format_ in ((), ("--json",)):
            done = command("delegate", "calendar", *options, *format_, said=said)
            assert done.exit_code == 0, done.output
            assert "SECRET" not in done.output
            assert kept(world) == [("calendar", "ines", expected)]
    assert "SECRET" not in str(audited(world))
    assert command("withdraw", "calendar").exit_code == 0
    assert kept(world) == []
    again = command("withdraw", "calendar")
    assert (again.exit_code, "has not delegated" in again.output) == (1, True)


def test_a_file_that_is_no_text_is_wrong_usage(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xff\xfe")
    done = command("delegate", "calendar", "--refresh-token-file", str(file))
    assert (done.exit_code, "not a text file" in done.output) == (2, True)
