"""gateway/: rate limits, guardrails and tools' classification, parsed and located."""

from __future__ import annotations

import pytest

from gateway.policy import Access, Policy, rules
from gateway.values import Millis, Sensitivity
from reconciler.config import Loaded
from tests.support.small_fleet import FILES, edited, fleet, loaded, tree

LIMITS = "gateway/rate-limits.yaml"
RAILS = "gateway/guardrails.yaml"
SERVERS = "gateway/mcp-servers.yaml"
CACHES = "gateway/caches.yaml"


def limits(text: str) -> Loaded:
    return loaded(tree({LIMITS: f"rate_limits:\n  - {{name: one, {text}}}\n"}))


def rails(text: str) -> Loaded:
    return loaded(tree({RAILS: f"guardrails:\n  - {{name: one, {text}}}\n"}))


def platform(result: Loaded) -> Policy:
    assert result.fleet is not None, "\n".join(map(str, result.findings))
    return result.fleet.platform


def test_a_rate_limit_is_per_window_for_what_it_matches() -> None:
    result = limits("team: payments, tool: 'tracker.*', requests: 30, window: minute, burst: 5")
    assert platform(result).rate_limits == (
        rules.RateLimit(
            name="one",
            requests=30,
            window_ms=Millis(60_000),
            burst=5,
            match=rules.Match(team="payments", tool="tracker.*"),
        ),
    )
    tokens = limits("model: smart, tokens: 200_000, window: day, each_agent: true, mode: audit")
    found = platform(tokens).rate_limits[0]
    assert (found.tokens, found.window_ms, found.each_agent, found.mode) == (
        200_000,
        86_400_000,
        True,
        "audit",
    )


def test_what_is_enforced_is_not_warned_about() -> None:
    assert limits("requests: 1, window: day").findings == ()
    assert rails("hooks: [model_input], secrets: {}").findings == ()


def caches(text: str) -> Loaded:
    return loaded(tree({CACHES: f"caches:\n  - {{name: one, {text}}}\n"}))


def test_a_cache_keeps_answers_for_whom_it_matches() -> None:
    assert platform(caches("ttl: 10m, namespace: team, agent: 'ci-*', model: smart")).caches == (
        rules.Cache(
            name="one",
            ttl_ms=Millis(600_000),
            namespace="team",
            match=rules.Match(agent="ci-*", model="smart"),
        ),
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("ttl: 10m, tool: 'tracker.*'", "a tool's answer is never kept"),
        ("ttl: 600", "write it like 30s"),
        ("ttl: 10m, namespace: world", "is not one of agent, team or fleet"),
        ("model: smart", 'key "ttl" is missing'),
    ],
)
def test_a_cache_that_could_not_be_is_refused(text: str, message: str) -> None:
    (found,) = caches(text).findings
    assert message in str(found)
    assert found.file == CACHES


@pytest.mark.parametrize(
    "text, expected",
    [
        ("window: day", "give requests, tokens or both"),
        ("window: fortnight, requests: 1", "is not one of second, minute, hour or day"),
        ("window: day, requests: 0", "requests: input should be greater than 0"),
        ("window: day, tool: x.y, tokens: 5", "a tool call has no tokens"),
        ("window: day, tool: x.y, model: z, requests: 5", "give either model or tool"),
        ("window: day, requests: 5, burst: 6", "burst is a part of requests"),
        ("window: day, request: 5", 'unknown key "request" in rate_limits; did you mean'),
    ],
)
def test_a_rate_limit_that_could_not_hold_is_refused(text: str, expected: str) -> None:
    result = limits(text)
    assert expected in "\n".join(map(str, result.findings))
    assert all(f.file == LIMITS and f.line == 2 for f in result.findings)
    assert result.fleet is None


CHECKS = {
    "secrets": ("secrets: {allow: ['^AKIAEXAMPLE']}", rules.SecretsCheck(allow=("^AKIAEXAMPLE",))),
    "pii": ("action: mutate, pii: {kinds: [email]}", rules.PiiCheck(kinds=("email",))),
    "regex": (
        "action: mutate, regex: {pattern: 'a+', replacement: b}",
        rules.RegexCheck(pattern="a+", replacement="b"),
    ),
    "json_schema": (
        "json_schema: {type: object}",
        rules.SchemaCheck(json_schema={"type": "object"}),
    ),
    "globs": ("globs: {deny: ['*drop table*']}", rules.GlobsCheck(deny=("*drop table*",))),
    "injection": ("injection: {}", rules.InjectionCheck()),
    "http": (
        "http: {url: 'https://scan.example/v1', hosts: [scan.example], key: {env: SCAN}}",
        rules.HttpCheck(
            url="https://scan.example/v1",
            hosts=("scan.example",),
            key=rules.SecretRef(env="SCAN"),
            timeout_ms=Millis(5000),
        ),
    ),
}


@pytest.mark.parametrize("kind", CHECKS)
def test_every_kind_of_guardrail_reaches_the_policy(kind: str) -> None:
    text, check = CHECKS[kind]
    found = platform(rails(f"hooks: [tool_input, tool_output], tool: '*.send', {text}"))
    assert found.guardrails[0].check == check
    assert found.guardrails[0].hooks == (rules.Hook.TOOL_INPUT, rules.Hook.TOOL_OUTPUT)
    assert found.guardrails[0].match == rules.Match(tool="*.send")
    again = Policy.model_validate(found.model_dump(mode="json"))
    assert again.guardrails == found.guardrails
    assert again.digest() == found.digest()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("hooks: [model_input]", "give one of secrets, pii, regex"),
        ("hooks: [model_input], secrets: {}, injection: {}", "give one of"),
        ("hooks: [], secrets: {}", "hooks: "),
        ("hooks: [before], secrets: {}", "is not one of model_input"),
        ("hooks: [tool_input], model: smart, secrets: {}", "tool_input never sees a model"),
        ("hooks: [model_output], tool: x.y, secrets: {}", "model_output never sees a tool"),
        ("hooks: [tool_input], action: mutate, injection: {}", "injection cannot mutate"),
        ("hooks: [tool_input], action: mutate, regex: {pattern: a}", "with a replacement"),
        ("hooks: [tool_input], regex: {pattern: a, replacement: b}", "with a replacement"),
        ("hooks: [tool_input], regex: {pattern: '('}", "pattern: not a regular expression"),
        ("hooks: [tool_input], globs: {}", "give allow or deny"),
        ("hooks: [tool_output], globs: {allow: [a], argument: to}", "hook tool_input only"),
        ("hooks: [tool_input], json_schema: {multipleOf: 0.5}", "0.5 has a fraction"),
        (
            "hooks: [tool_input], http: {url: 'https://a.example', hosts: [b.example]}",
            "texts may not be sent to a.example; list it under hosts",
        ),
        (
            "hooks: [tool_input], http: {url: 'https://a.example', hosts: [a.example], key: abc}",
            "key: expected a mapping",
        ),
    ],
)
def test_a_guardrail_that_could_not_hold_is_refused(text: str, expected: str) -> None:
    result = rails(text)
    assert expected in "\n".join(map(str, result.findings))
    assert all(f.file == RAILS and f.line == 2 for f in result.findings)
    assert result.fleet is None


def test_the_rules_are_part_of_what_is_published() -> None:
    plain = fleet().platform
    with_one = platform(limits("requests: 1, window: day"))
    assert with_one.digest() != plain.digest()
    assert with_one.model_copy(update={"rate_limits": ()}).digest() == plain.digest()


def test_a_name_is_used_once_in_all_files() -> None:
    text = "rate_limits: [{name: one, requests: 1, window: day}]\n"
    result = loaded(tree({LIMITS: text, "gateway/more.yaml": text}))
    assert 'rate-limit "one" is defined twice (first at gateway/more.yaml' in "\n".join(
        map(str, result.findings)
    )


def test_a_servers_defaults_hold_for_tools_that_do_not_say_it_themselves() -> None:
    text = FILES[SERVERS].replace(
        "    tools:\n",
        "    defaults: {trusted: true, sensitivity: secret, access: [read]}\n    tools:\n"
        "      peek: {sensitivity: public}\n",
    )
    tools = fleet(tree({SERVERS: text})).platform.servers["tracker"].tools
    assert tools["peek"].access == (Access.READ,)
    assert tools["peek"].sensitivity is Sensitivity.PUBLIC
    assert tools["peek"].trusted
    assert tools["open"].access == (Access.WRITE,)
    assert tools["open"].sensitivity is Sensitivity.SECRET


def test_a_tool_nobody_classified_writes_and_sends() -> None:
    repository = edited(SERVERS, "      list: {access: [read], ", "      list: {")
    tool = fleet(repository).platform.tool("tracker.list")
    assert tool is not None
    assert tool.access == (Access.WRITE, Access.EGRESS)
    dropped = fleet().platform.tool("tracker.drop_all")
    assert dropped is not None
    assert Access.DESTRUCTIVE in dropped.access


@pytest.mark.parametrize("kind", ["github", "gitlab", "gitea"])
def test_a_forge_that_is_not_served_is_refused(kind: str) -> None:
    result = loaded(edited("interlock.yaml", "fleet:", f"fleet:\n  forge: {{kind: {kind}}}"))
    assert f"interlock.yaml:2:17 kind: {kind} is not supported by this version; write local" in str(
        result.findings[0]
    )
    assert result.fleet is None
    local = loaded(edited("interlock.yaml", "fleet:", "fleet:\n  forge: {kind: local}"))
    assert local.fleet is not None
    assert local.fleet.forge == "local"


def test_shared_things_know_where_they_are_named() -> None:
    places = {" ".join(key): str(place) for key, place in fleet().places.items()}
    assert places == {
        "fleet defaults": "interlock.yaml:3:3",
        "rollout standard": "interlock.yaml:9:5",
        "rollout ungated": "interlock.yaml:12:5",
        "team payments": "teams.yaml:2:3",
        "provider offline": "gateway/models.yaml:2:3",
        "provider openai": "gateway/models.yaml:3:3",
        "model large": "gateway/models.yaml:5:3",
        "model small": "gateway/models.yaml:6:3",
        "model smart": "gateway/models.yaml:8:3",
        "virtual-model smart": "gateway/models.yaml:8:3",
        "server tracker": "gateway/mcp-servers.yaml:2:3",
        "tool tracker.list": "gateway/mcp-servers.yaml:5:7",
        "tool tracker.open": "gateway/mcp-servers.yaml:6:7",
        "tool tracker.delete": "gateway/mcp-servers.yaml:7:7",
        "destructive list": "gateway/mcp-servers.yaml:8:1",
        "budget month": "gateway/budgets.yaml:2:12",
        "image default": "interlock.lock:2:12",
        "fingerprint tracker.open": "interlock.lock:3:11",
        "skill python": "skills/python/SKILL.md:1:1",
    }
