"""The policy a fleet publishes to the gateway."""

from __future__ import annotations

from gateway.policy import Access, effective
from gateway.values import AgentName
from reconciler.config.policy import policy
from reconciler.release import ceiling_of, roles
from tests.support.small_fleet import FILES, edited, fleet, loaded, release, tree

TRIAGE = AgentName("triage")


def test_prices_are_exact_nano_dollars_a_token() -> None:
    price = policy(fleet()).models["large"].price
    assert price is not None
    assert (price.input, price.output) == (3_000, 15_000)


def test_money_and_scripts_and_fingerprints_reach_the_gateway() -> None:
    published = policy(fleet())
    assert published.budgets[0].limit == 200_000_000_000
    script = published.providers["offline"].script
    assert script is not None
    assert script.rules[0].say == "done"
    assert published.servers["tracker"].tools["open"].fingerprint == "fp-1"
    assert published.servers["tracker"].tools["open"].access == (Access.WRITE,)


def test_a_release_and_the_commit_it_comes_from_allow_the_same() -> None:
    published = policy(fleet())
    for name, role in roles(release()).items():
        assert effective(role.grants, published, "triage", name) == role.grants
        assert published.agents["triage"].roles[name] == role.grants


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
    now = effective(before, policy(changed.fleet), "triage", "main")
    assert "tracker.open" in before.tools
    assert list(now.tools) == ["tracker.list"]


def test_a_virtual_model_grants_its_targets_by_name() -> None:
    grants = policy(fleet()).agents["triage"].roles["main"]
    assert grants.models == ("large", "small", "smart")


def test_a_broken_agent_may_do_nothing_by_this_commit_alone() -> None:
    broken = loaded(edited("agents/triage/agent.yaml", "name: tracker", "name: traker"))
    assert broken.fleet is not None
    assert policy(broken.fleet).agents == {}


def test_the_ceiling_of_a_release_is_what_its_own_commit_allowed() -> None:
    assert ceiling_of(release(), "payments") == policy(fleet()).agents["triage"]


def test_same_documents_same_policy() -> None:
    spaced = edited("gateway/models.yaml", "providers:", "# a comment\nproviders:   ")
    assert policy(fleet(spaced)).digest() == policy(fleet()).digest()
    dearer = edited("gateway/models.yaml", "3.00", "3.01")
    assert policy(fleet(dearer)).digest() != policy(fleet()).digest()
