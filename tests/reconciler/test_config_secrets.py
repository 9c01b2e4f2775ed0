"""What looks like a credential, and what does not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.config.positions import parse_text
from reconciler.config.secrets import named_secret, secret_kind, secret_offset
from tests.support.small_fleet import loaded, tree

TAIL = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2w3X4y5Z6"

MARKED = {
    "an Anthropic key": "sk-ant-" + "api03-" + TAIL,
    "an OpenAI key": "sk-" + "proj-" + TAIL,
    "an OpenRouter key": "sk-" + "or-v1-" + TAIL,
    "a GitHub token": "github_" + "pat_" + TAIL,
    "a GitLab token": "gl" + "pat-" + TAIL,
    "a Google client secret": "GOC" + "SPX-" + TAIL,
    "a Slack token": "xo" + "xb-" + TAIL,
    "a Stripe key": "sk_" + "live_" + TAIL,
    "an npm token": "npm" + "_" + TAIL,
    "a Hugging Face token": "hf" + "_" + TAIL,
    "a Docker token": "dckr_" + "pat_" + TAIL,
    "a Groq key": "gsk" + "_" + TAIL,
    "a Replicate token": "r8" + "_" + TAIL,
    "a Vault token": "hvs" + "." + TAIL,
    "a Databricks token": "da" + "pi" + "0123456789abcdef" * 2,
    "a private key": "-----BEGIN " + "PRIVATE KEY-----",
}


@pytest.mark.parametrize("kind", MARKED)
def test_a_credential_with_a_marker_is_found_anywhere(kind: str) -> None:
    assert secret_kind(f"use {MARKED[kind]} for this") == kind
    found = secret_offset(f"# Notes\n\nuse {MARKED[kind]}")
    assert found is not None
    assert found[1] == kind


@pytest.mark.parametrize(
    "line", ["api_key: {}", "password = '{}'", 'TOKEN="{}"', '  "clientSecret": "{}"']
)
def test_random_text_after_a_name_that_says_so_is_a_credential(line: str) -> None:
    text = line.format("9f86d081884c7d659a2feaa0")
    found = named_secret(text)
    assert found == (text.index("9f86"), "a credential")


@pytest.mark.parametrize(
    "text",
    [
        "key: {env: PAYMENTS_API_KEY_2}",
        "token: see the vault of the platform team",
        "sort_key: customer_created_at_timestamp_1",
        "api_key: my-test-placeholder-1-2-3-4",
        "digest: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "key: sha256:9f86d081",
        "secrets are in the file ./keys/payments.md",
    ],
)
def test_words_references_and_digests_are_none(text: str) -> None:
    assert secret_offset(text) is None


def test_a_credential_without_a_marker_is_found_in_yaml_where_it_stands() -> None:
    document = parse_text("x.yaml", "a: 1\nparameters: {api_key: 9f86d081884c7d659a2feaa0}\n")
    assert [str(f) for f in document.findings] == [
        "x.yaml:2:23 this looks like a credential; never commit a key: revoke it, and refer to it"
        " as {env: NAME} or {file: PATH}"
    ]


@given(st.text(alphabet="key token=:\"'-a1", max_size=300))
def test_what_is_found_is_in_the_text(text: str) -> None:
    found = secret_offset(text)
    assert found is None or 0 <= found[0] < len(text)


@pytest.mark.parametrize("bait", ["key:", "key: aaaaaaaaaaaaaaaaaaaaa ", "token='", "hf_a", "a1"])
def test_no_text_makes_the_search_slow(bait: str) -> None:
    began = time.process_time()
    secret_offset(bait * (400_000 // len(bait)))
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("path", ["skills/python/reference.md", "skills/python/scripts/run.sh"])
def test_a_credential_in_any_file_of_a_skill_is_found(path: str) -> None:
    result = loaded(tree({path: f"# one\nexport TOKEN={MARKED['a GitLab token']}\n"}))
    assert f"{path}:2:14 this looks like a GitLab token" in "\n".join(map(str, result.findings))
    assert "triage" in result.broken
