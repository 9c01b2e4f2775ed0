"""What a chapter finds in the store and at the forge after it acted: is it as it was told?"""

from __future__ import annotations

from dataclasses import dataclass

from gateway import access
from gateway.database import Row
from gateway.policy import Policy
from reconciler.demo.world import StoryFailed, World
from reconciler.process.store import open_database
from runner.spec import RunOutcome


def expect(held: bool, otherwise: str) -> None:
    """Raise StoryFailed with these words unless it is so."""
    if not held:
        raise StoryFailed(otherwise)


def rollout(world: World, agent: str, *, pull: int | None = None) -> Row:
    """The agent's newest rollout: of what is merged, or of a pull request's head."""
    rows = world.rows(
        "SELECT * FROM rollouts WHERE agent = :agent AND coalesce(pull, 0) = :pull"
        " ORDER BY opened_at DESC, rollout DESC LIMIT 1",
        agent=agent,
        pull=pull or 0,
    )
    expect(bool(rows), f"{agent} has no rollout" + (f" for #{pull}" if pull else ""))
    return rows[0]


def stable(world: World, agent: str) -> str | None:
    """The release that runs are given."""
    rows = world.rows("SELECT stable FROM pointers WHERE agent = :agent", agent=agent)
    return str(rows[0]["stable"]) if rows else None


def live(world: World, agent: str) -> list[Row]:
    """The agent's runs that have ended, oldest first; no evals."""
    return world.rows(
        "SELECT * FROM runs WHERE agent = :agent AND purpose = 'live' AND status = 'finished'"
        " ORDER BY created_at, run",
        agent=agent,
    )


def outcome(row: Row) -> RunOutcome:
    """How a run ended."""
    return RunOutcome.model_validate_json(row["outcome"])


def evals(world: World) -> int:
    """Eval runs so far."""
    return int(world.rows("SELECT count(*) AS n FROM runs WHERE purpose = 'eval'")[0]["n"])


def waiting(world: World) -> list[str]:
    """Scopes of which something waits for an approval."""
    return [row["scope"] for row in world.rows("SELECT scope FROM waiting ORDER BY scope")]


def decisions(world: World) -> list[Row]:
    """What people approved, what of it was used, what is in force, and which words were heard."""
    return [
        row
        for table, key in (
            ("approvals", "approval"),
            ("in_force", "scope"),
            ("pull_comments", "pull, comment"),
            ("versions", "path, number"),
        )
        for row in world.rows(f"SELECT * FROM {table} ORDER BY {key}")  # noqa: S608 - our own names
    ]


def tools(world: World, agent: str) -> set[str]:
    """Tools that the gateway lets the agent call today."""
    database = open_database(world.state)
    try:
        with database.snapshot() as tx:
            found = access.agent_policy(tx, agent)
    finally:
        database.close()
    return set(found.roles["main"].tools) if found is not None else set()


def policy(world: World) -> Policy:
    """What the gateway goes by: providers, their addresses, budgets."""
    database = open_database(world.state)
    try:
        with database.snapshot() as tx:
            return access.current_policy(tx)[1]
    finally:
        database.close()


@dataclass(frozen=True)
class Shown:
    """A pull request as people see it: comments of Interlock by marker, states of its checks."""

    comments: dict[str, str]
    checks: dict[str, str]


def pull(world: World, number: int) -> Shown:
    """One pull request now."""
    shown = world.pr("show", str(number), by="mara")
    comments = {}
    for said in shown["comments"]:
        marker, _, body = str(said["body"]).partition(" -->")
        if said["bot"]:
            comments[marker.removeprefix("<!-- interlock:")] = body
    return Shown(comments, {s["context"]: s["state"] for s in shown["statuses"]})
