"""gateway/models.yaml, budgets.yaml and mcp-servers.yaml: providers, routing, quotas, servers."""

# ruff: noqa: E501 - tables read better with one row a line

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gateway.policy import OAuth, Policy, Retry, SecretRef, TapeEntry, ToolServer, VirtualModel
from reconciler.config import Loaded
from tests.support.small_fleet import loaded, tree

MORE = "gateway/more.yaml"
TAPE = "gateway/tapes/x.jsonl"


def more(text: str, **files: str) -> Loaded:
    return loaded(tree({MORE: text, **files}))


def platform(result: Loaded) -> Policy:
    assert result.fleet is not None, "\n".join(map(str, result.findings))
    return result.fleet.platform


def provider(text: str, **files: str) -> Loaded:
    return more(f"providers:\n  p: {{{text}}}\n", **files)


def virtual(text: str) -> Loaded:
    return more(f"virtual_models:\n  v: {{{text}}}\n")


def server(text: str) -> Loaded:
    return more(f"servers:\n  s: {{{text}}}\n")


def budget(text: str) -> Loaded:
    return more(f"budgets:\n  - {{name: b, {text}}}\n")


AZURE = "kind: azure, base_url: https://a.example, key: {env: K}, hosts: [a.example]"
OAUTH = "token_url: https://login.example/token, client_id: me"
HTTP = "url: https://s.example/mcp, hosts: [s.example]"


@pytest.mark.parametrize(
    "kind, text, at, message",
    [
        (provider, AZURE, "{", "an azure provider, and no other, has an api_version, such as 2024-10-21"),
        (provider, "kind: openai, base_url: https://a.example, api_version: 2024-10-21", "{", "an azure provider, and no other"),
        (provider, "kind: cassette", "{", "a cassette provider, and no other, has a cassette"),
        (provider, "kind: cassette, cassette: ./tapes/x.jsonl", "./tapes", "there is no cassette"),
        (provider, "kind: openai, base_url: https://a.example, apis: []", "{", "apis is empty"),
        (provider, "kind: openai, base_url: https://a.example, tape: x", "tape", "write cassette: and the path"),
        (virtual, "targets: [large, larg]", "v:", 'model "larg" is not defined; did you mean "large"?'),
        (virtual, "targets: [large, large]", "{", "large is listed twice"),
        (virtual, "targets: [{model: large, weight: 2}, small]", "{", "weights do nothing without routing: weight"),
        (virtual, "routing: weight, targets: [{model: large, weight: 0}]", "{", "every weight is 0"),
        (virtual, "routing: weights, targets: [large]", "weights", 'did you mean "weight"?'),
        (virtual, "targets: [large], weights: {larg: 2}", "weights", "write routing: weight and targets"),
        (virtual, "targets: [large], first_token: 3", "3", "write it like 30s"),
        (virtual, "targets: [large], first_token_ms: 300", "first_token_ms", "write first_token: and a duration"),
        (virtual, "targets: [large], retry: {backoff: 9s}", "{backoff", "max_backoff is shorter than backoff"),
        (virtual, "targets: [large], retry: {attempts: 50}", "50", "attempts"),
        (virtual, "targets: [large], fallback_on: [200]", "200", "400"),
        (server, "tools: {}", "{", "give either url or command"),
        (server, f"{HTTP}, command: [npx, s]", "{", "give either url or command"),
        (server, "command: npx s", "npx", "write command: [program, argument, …]"),
        (server, "command: [npx, s], env: {TOKEN: abc}", "abc", "never the value itself"),
        (server, "command: [npx, s], key: {env: K}", "{", "key is of a server with a url; a command gets its env"),
        (server, f"{HTTP}, env: {{A: {{env: B}}}}", "{", "env is of a command"),
        (server, f"{HTTP}, key: {{env: K}}, oauth: {{{OAUTH}, client_secret: {{env: S}}}}", "{", "give either key or oauth"),
        (server, f"url: https://s.example/mcp, oauth: {{{OAUTH}, client_secret: {{env: S}}}}", "{", "the token may not be sent to s.example"),
        (server, f"{HTTP}, oauth: {{{OAUTH}}}", "{token_url", "client credentials need a client_secret"),
        (server, f"{HTTP}, oauth: {{{OAUTH}, per_user: true, refresh_token: {{env: R}}}}", "{token_url", "with per_user each person has a refresh token of their own"),
        (server, f"{HTTP}, oauth: {{{OAUTH}, client_secret: {{env: S}}, hosts: [other.example]}}", "{token_url", "may not be sent to login.example"),
        (server, f"{HTTP}, oauth: {{token_url: 'http://login.example/token', client_id: me, client_secret: {{env: S}}}}", "{token_url", "token_url must be https"),
        (server, f"{HTTP}, oauth: {{{OAUTH}, client_secret: hunter2}}", "hunter2", "never the secret itself"),
        (server, f"{HTTP}, max_result: 64000", "64000", "write it like 512m"),
        (provider, f"{AZURE}, api_version: 2024-10-21, max_concurrent: 0", "0", "greater than 0"),
        (budget, "window: day", "{", "give limit (dollars), tokens, requests or several of them"),
        (budget, "window: day, tokens: 0", "0", "greater than 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_an_error_where_it_stands(
    kind: Callable[[str], Loaded], text: str, at: str, message: str
) -> None:
    result = kind(text)
    assert result.fleet is None
    (found,) = (f for f in result.findings if message in str(f))
    prefix = "  - {name: b, " if kind is budget else f"  {kind.__name__[0]}: {{"
    assert (found.file, found.line) == (MORE, 2)
    assert f"{prefix}{text}}}"[found.column - 1 :].startswith(at)


def test_a_secret_that_was_pasted_into_an_environment_is_found() -> None:
    result = server("command: [npx, s], env: {TOKEN: ghp_" + "a1B2" * 10 + "}")
    assert "secret" in [f.id for f in result.findings]


def test_a_provider_says_what_it_can_be_asked_and_how_much_at_once() -> None:
    found = platform(
        provider(
            f"{AZURE}, api_version: 2024-10-21, apis: [chat], max_concurrent: 4, max_waiting: 9"
        )
    ).providers["p"]
    assert (found.kind, found.api_version) == ("azure", "2024-10-21")
    assert (found.apis, found.max_concurrent, found.max_waiting) == (("chat",), 4, 9)


def test_a_cassette_is_read_line_by_line_and_has_no_fractions() -> None:
    entries = [
        {"request": "a", "response": {"text": "hi", "n": 1}},
        {"request": "b", "status": 429, "response": {"temperature": 0.5}},
        {"request": "c", "events": ["{}", "[DONE]"]},
    ]
    text = "\n".join(map(json.dumps, entries)) + "\n\n"
    found = platform(provider("kind: cassette, cassette: ./tapes/x.jsonl", **{TAPE: text}))
    assert found.providers["p"].tape == (
        TapeEntry(request="a", response={"text": "hi", "n": 1}),
        TapeEntry(request="b", status=429, response='{"temperature": 0.5}'),
        TapeEntry(request="c", events=("{}", "[DONE]")),
    )
    assert found.digest()  # it could not be published with a float in it


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "1:1 no call is recorded here"),
        ('{"request": "a"}\n{"request": \n', "2:"),
        ('{"request": "a"}\n[]\n', "2:1 expected an object"),
        ('{"request": "a", "respnse": {}}\n', "1:1 respnse: extra inputs"),
        ('{"request": "a", "response": "sk-ant-' + "a1B2" * 8 + '"}\n', "this looks like"),
        ('{"request": "a", "response": ' + "[" * 5000 + "]" * 5000 + "}\n", "1:1"),
    ],
)
def test_a_cassette_that_cannot_be_played_says_in_which_line(text: str, message: str) -> None:
    result = provider("kind: cassette, cassette: ./tapes/x.jsonl", **{TAPE: text})
    assert result.fleet is None
    assert any(message in str(f) and f.file == TAPE for f in result.findings), result.findings


def test_a_virtual_model_has_a_short_form_and_a_long_one() -> None:
    short = platform(virtual("targets: [large, small]")).virtual_models["v"]
    assert short == VirtualModel(targets=("large", "small"))
    long = platform(
        virtual(
            "routing: weight, targets: [{model: large, weight: 3, parameters: {temperature: 0.20}}, small], "
            "retry: {attempts: 3, backoff: 250ms, max_backoff: 8s, on: [503, 429]}, fallback_on: [400], "
            "first_token: 3s, sticky: run"
        )
    ).virtual_models["v"]
    assert long == VirtualModel(
        targets=("large", "small"),
        routing="weight",
        weights={"large": 3},
        parameters={"large": {"temperature": "0.2"}},
        retry=Retry(attempts=3, on=(429, 503)),
        fallback_on=(400,),
        first_token_ms=3000,  # type: ignore[arg-type]
        sticky="run",
    )


def test_a_server_may_be_a_command_with_an_environment_of_references() -> None:
    found = platform(
        server("command: [npx, s], env: {A: {env: B}}, max_result: 32k, listing: full")
    )
    assert found.servers["s"] == ToolServer(
        command=("npx", "s"),
        env={"A": SecretRef(env="B")},
        max_result_bytes=32_768,
        listing="full",
    )


def test_a_server_may_want_the_word_of_a_person() -> None:
    oauth = f"{OAUTH}, client_secret: {{env: S}}, per_user: true, scopes: [a]"
    found = platform(server(f"{HTTP}, oauth: {{{oauth}}}")).servers["s"]
    assert found.oauth == OAuth(
        token_url="https://login.example/token",
        client_id="me",
        client_secret=SecretRef(env="S"),
        per_user=True,
        scopes=("a",),
    )


def test_a_budget_may_limit_calls_and_tokens_of_people_and_tags() -> None:
    text = 'window: day, requests: 5, tokens: 1_000, user: "*", tag: batch'
    found = platform(budget(text)).budgets[-1]
    assert (found.limit, found.requests, found.tokens) == (None, 5, 1000)
    assert (found.user, found.tag) == ("*", "batch")


def test_tokens_limit_no_money_so_a_run_still_needs_a_limit_on_cost() -> None:
    files = {
        "interlock.yaml": tree()
        .read("interlock.yaml")
        .decode()
        .replace("max_cost_per_run: 0.50, ", "")
    }
    result = more("budgets:\n  - {name: b, window: run, tokens: 10}\n", **files)
    assert [f.id for f in result.findings] == ["no-money-limit"]
    result = more("budgets:\n  - {name: b, window: run, limit: 1, tag: batch}\n", **files)
    assert [f.id for f in result.findings] == ["no-money-limit"]
    result = more("budgets:\n  - {name: b, window: run, limit: 1}\n", **files)
    assert result.findings == ()


def test_no_server_can_be_called_like_the_gateways_own_tools() -> None:
    result = more(
        "servers:\n  tidy: {url: https://t.example/mcp}\n  interlock: {url: https://i.example/mcp}\n"
    )
    assert result.fleet is None
    (found,) = (f for f in result.findings if f.id == "reserved-name")
    assert str(found.place) == f"{MORE}:3:3"
    assert 'no tool server can be called "interlock"' in str(found)
    assert "rename it" in str(found)


@pytest.mark.parametrize("wrong", ["fp-1", "A" * 64, "a" * 63, "sha256:" + "a" * 64])
def test_a_locked_fingerprint_is_64_hex_digits(wrong: str) -> None:
    result = loaded(tree({"interlock.lock": f"lock:\n  tools:\n    tracker.open: {wrong}\n"}))
    assert result.fleet is None
    (found,) = (f for f in result.findings if "64 hex digits" in str(f))
    assert str(found).startswith("interlock.lock:3:19 ")
    assert "`interlock lock` writes it" in str(found)
