"""The policy a fleet publishes to the gateway."""

from __future__ import annotations

from gateway.policy import Access, AgentPolicy, effective
from gateway.values import AgentName
from reconciler.config import Fleet
from reconciler.config.policy import ceiling
from reconciler.release import ceiling_of, roles
from tests.support.small_fleet import FILES, LOCKED, edited, fleet, loaded, release, tree

TRIAGE = AgentName("triage")


def of_triage(fleet: Fleet) -> AgentPolicy:
    return ceiling(fleet.agents[TRIAGE], fleet.platform)


def test_prices_are_exact_nano_dollars_a_token() -> None:
    price = fleet().platform.models["large"].price
    assert price is not None
    assert (price.input, price.output) == (3_000, 15_000)


def test_money_and_scripts_and_fingerprints_reach_the_gateway() -> None:
    published = fleet().platform
    assert published.budgets[0].limit == 200_000_000_000
    script = published.providers["offline"].script
    assert script is not None
    assert script.rules[0].say == "done"
    assert published.servers["tracker"].tools["open"].fingerprint == LOCKED
    assert published.servers["tracker"].tools["open"].access == (Access.WRITE,)


def test_a_release_and_the_commit_it_comes_from_allow_the_same() -> None:
    allowed = of_triage(fleet())
    for name, role in roles(release()).items():
        assert effective(role.grants, allowed.roles[name]) == role.grants
        assert allowed.roles[name] == role.grants


def test_a_tool_taken_away_is_gone_for_the_release_that_had_it() -> None:
    before = roles(release())["main"].grants
    path = "agents/triage/agent.yaml"
    text = (
        FILES[path]
        .replace("tools: [open, list], args: {project: northwind-*}", "tools: [list]")
        .replace("  approvals: {open: pause_for_human}\n", "")
    )
    changed = loaded(tree({path: text}))
    assert changed.fleet is not None, changed.findings
    now = effective(before, of_triage(changed.fleet).roles["main"])
    assert "tracker.open" in before.tools
    assert list(now.tools) == ["tracker.list"]


def test_a_virtual_model_grants_its_targets_by_name() -> None:
    grants = of_triage(fleet()).roles["main"]
    assert grants.models == ("large", "small", "smart")


def test_the_ceiling_of_a_release_is_what_its_own_commit_allowed() -> None:
    assert ceiling_of(release(), "payments") == of_triage(fleet())


def test_same_documents_same_policy() -> None:
    spaced = edited("gateway/models.yaml", "providers:", "# a comment\nproviders:   ")
    assert fleet(spaced).platform.digest() == fleet().platform.digest()
    dearer = edited("gateway/models.yaml", "3.00", "3.01")
    assert fleet(dearer).platform.digest() != fleet().platform.digest()
