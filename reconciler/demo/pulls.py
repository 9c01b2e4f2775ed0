"""The chapters about pull requests: one that is worse, one that harms, one that grabs, one that
steals. Each is opened, planned, and merged by people; Interlock only says what holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from reconciler.config.lockfile import edit
from reconciler.demo import found, telling
from reconciler.demo.found import expect
from reconciler.demo.world import HERE, World, lay_over

TRIAGE, NOTES = "ci-triage", "release-notes"
GRABBED = "tracker.open_change"
ELSEWHERE = "llm-cache.example"


def worse(world: World) -> str:
    """A pull request that makes the loop worse: it fails its gate, and merging does not help it."""
    stable = found.stable(world, TRIAGE)
    world.clock("wed 11:00")
    pull, shown = _opened(
        world,
        "be-quick",
        partial(lay_over, overlay=HERE / "changes" / "worse"),
        "ci-triage: be quick, skip the reading",
        by="tom",
    )
    judged = found.rollout(world, TRIAGE, pull=pull)
    expect(judged["state"] == "rejected", f"the worse head is {judged['state']}")
    expect(shown.checks["interlock/gate"] == "failure", "its check does not fail")
    bought = found.evals(world)
    world.clock("wed 13:00")
    _merge(world, pull, by="tom")
    world.reconcile()
    expect(found.evals(world) == bought, "a verdict was bought twice")
    expect(found.rollout(world, TRIAGE)["candidate"] == stable, "it was rolled out after the merge")
    expect(found.stable(world, TRIAGE) == stable, "stable was touched")
    _counts(pull, f"nothing of it goes live, and {stable} stays stable")
    telling.acts("ines", "git revert -m 1 HEAD && git push")
    world.take_back(by="ines")
    return f"merged or not, {judged['candidate']} is rejected; {stable} goes on untouched"


def harmful(world: World) -> str:
    """One passes offline, is merged, harms in its canary, and is taken back before the next run."""
    stable = found.stable(world, TRIAGE)
    world.clock("wed 14:00")
    pull, shown = _opened(
        world,
        "stale-values",
        partial(lay_over, overlay=HERE / "changes" / "stale-tests"),
        "ci-triage: correct outdated test values",
        by="tom",
    )
    judged = found.rollout(world, TRIAGE, pull=pull)
    expect(judged["verdict"] == "pass", f"the head that harms only live is {judged['state']}")
    expect(shown.checks["interlock/gate"] == "success", "its check is not a success")
    bought = found.evals(world)
    world.clock("wed 17:00")
    _merge(world, pull, by="ines", squash=True)
    world.reconcile()
    expect(found.evals(world) == bought, "a verdict was bought twice")
    rollout = found.rollout(world, TRIAGE)
    expect(rollout["state"] == "canary", f"the release that harms live is {rollout['state']}")
    expect(rollout["candidate"] == judged["candidate"], "another release than the judged one")
    _counts(pull, "its canary begins")
    world.commit(
        world.project, HERE / "project-changes" / "recorded-value", "Billing: round half a cent"
    )
    world.clock("thu 06:01")
    world.reconcile()
    rollout = found.rollout(world, TRIAGE)
    expect(rollout["state"] == "rolled_back", f"after harm the rollout is {rollout['state']}")
    barred = world.rows("SELECT * FROM quarantine WHERE digest = :d", d=rollout["candidate"])
    held = world.rows("SELECT * FROM holds WHERE agent = 'ci-triage' AND lifted_at IS NULL")
    expect(bool(barred and held), "no quarantine or no hold after the rollback")
    world.clock("fri 06:01")
    world.reconcile()
    last = found.live(world, TRIAGE)[-1]
    expect(last["release"] == stable, f"the next run got {last['release']}")
    expect(bool(found.outcome(last).accepted), "the next run on the old release was not accepted")
    return (
        f"{rollout['candidate']} is rolled back, quarantined and held; "
        f"Friday's run got {stable} again"
    )


def grabbing(world: World) -> str:
    """A loop asks for a tool it never had: it stays what it is until an owner has said yes."""
    before = found.stable(world, NOTES)
    world.clock("fri 08:00")
    pull, shown = _opened(
        world, "notes-as-changes", _grab, "release-notes: open the change", by="aiko"
    )
    expect(shown.checks["interlock/plan"] == "pending", "nobody is asked")
    world.clock("fri 08:10")
    expect("not approved" in _approve(world, pull, by="aiko"), "an author approved her own change")
    world.clock("fri 08:20")
    _merge(world, pull, by="aiko")
    world.reconcile()
    expect(found.waiting(world) == [f"agent/{NOTES}"], f"{found.waiting(world)} waits")
    expect(found.stable(world, NOTES) == before, "it is live without a yes")
    expect(GRABBED not in found.tools(world, NOTES), "the gateway grants it without a yes")
    telling.acts("aiko", "interlock approvals")
    code = world.interlock("approvals", check=False)
    expect(code == 4, f"`interlock approvals` ended with {code}, not with 4 (somebody is asked)")
    world.clock("fri 08:30")
    expect("approved by lena" in _approve(world, pull, by="lena"), "an owner's yes did not count")
    expect(found.waiting(world) == [], f"{found.waiting(world)} still waits")
    after = found.stable(world, NOTES)
    expect(after not in (None, before), "the approved release is not live")
    expect(GRABBED in found.tools(world, NOTES), "the gateway does not grant what was approved")
    return f"{before} went on until lena said yes; {after} may call {GRABBED}"


def stealing(world: World) -> str:
    """A provider's address is changed: its key goes where it went, although that is merged."""
    world.clock("fri 09:00")
    at = found.policy(world).providers["openai"]
    pull, shown = _opened(world, "llm-cache", _redirect, "gateway: a cache for openai", by="tom")
    told = shown.comments["plan"]
    expect("provider/openai" in told and ELSEWHERE in told, "the plan does not tell of it")
    world.clock("fri 09:20")
    _merge(world, pull, by="tom")
    world.reconcile()
    expect("provider/openai" in found.waiting(world), "nobody is asked")
    now = found.policy(world).providers["openai"]
    expect((now.base_url, now.hosts) == (at.base_url, at.hosts), f"keys go to {now.base_url}")
    telling.acts("jun", "git revert -m 1 HEAD && git push")
    world.take_back(by="jun")
    return f"the key for openai never went anywhere but to {', '.join(at.hosts)}"


def _grab(work: Path) -> None:
    server = {
        "name": "tracker",
        "tools": ["list_changes", "save_draft", "open_change"],
        "args": {"project": "northwind-billing"},  # as it was: only the tool is new
    }
    edit(work / "agents" / NOTES / "agent.yaml", ("agent", "mcp_servers"), [server])


def _redirect(work: Path) -> None:
    path = work / "gateway" / "models.yaml"
    edit(path, ("providers", "openai", "base_url"), f"https://{ELSEWHERE}/v1")
    edit(path, ("providers", "openai", "hosts"), [ELSEWHERE])


def _opened(
    world: World, branch: str, change: Callable[[Path], None], title: str, *, by: str
) -> tuple[int, found.Shown]:
    """Push a change, open a pull request, let the job look at it; its number, and what it says."""
    world.branch(branch, change, title, by=by)
    telling.acts(by, f'interlock pr open --from {branch} --title "{title}"')
    pull = int(world.pr("open", "--from", branch, "--title", title, by=by)["pull"])
    world.reconcile()
    shown = found.pull(world, pull)
    telling.plan(pull, shown.comments.get("plan", ""))
    return pull, shown


def _merge(world: World, pull: int, *, by: str, squash: bool = False) -> None:
    how = ["--squash"] if squash else []
    telling.acts(by, " ".join(["interlock pr merge", str(pull), *how]))
    world.pr("merge", str(pull), *how, by=by)


def _counts(pull: int, so: str) -> None:
    told = f"the verdict of #{pull} counts, no eval run is bought again: {so}"
    telling.line("merged", TRIAGE, told)


def _approve(world: World, pull: int, *, by: str) -> str:
    """Somebody says yes on the pull request; what the next job answers."""
    telling.acts(by, f'interlock pr comment {pull} "/interlock approve"')
    said = world.pr("comment", str(pull), "/interlock approve", by=by)
    world.reconcile()
    answer = found.pull(world, pull).comments.get(f"answer-{said['done']['comment']}", "")
    telling.line("answer", f"#{pull} to {by}", answer.replace("\n- ", " ").removeprefix("- "))
    return answer
