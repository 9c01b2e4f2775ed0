"""Prices: the bundled table by address, the policy's override, tiers, rounding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import Model, Price, Provider
from gateway.pricing import PriceList, Tier, Usage, price_of
from gateway.values import NanoUSD
from tests.gateway.stage import NOW

OPENAI = Provider(kind="openai")
DIGEST = "0123456789abcdef"


def test_a_known_model_has_the_tables_price() -> None:
    price = price_of(Model(provider="p", id="gpt-4o"), OPENAI, DIGEST, NOW)
    assert price is not None
    assert price.table.startswith("genai-prices:")
    # $2.50 and $10 per million tokens, cached input $1.25.
    assert price.cost(Usage(1_000_000, 0)) == 2_500_000_000
    assert price.cost(Usage(0, 1_000_000)) == 10_000_000_000
    assert price.cost(Usage(1_000_000, 0, cached=1_000_000)) == 1_250_000_000


def test_a_local_server_does_not_get_openais_price_for_the_same_name() -> None:
    local = Provider(kind="openai", base_url="http://127.0.0.1:8080/v1")
    assert price_of(Model(provider="p", id="gpt-4o"), local, DIGEST, NOW) is None


@pytest.mark.parametrize(
    "provider",
    [OPENAI, Provider(kind="scripted"), Provider(kind="cassette"), Provider(kind="azure")],
)
def test_nobody_guesses_the_price_of_an_unknown_model(provider: Provider) -> None:
    assert price_of(Model(provider="p", id="no-such-model-9"), provider, DIGEST, NOW) is None


def test_an_override_wins_and_names_the_policy() -> None:
    override = Price(input=NanoUSD(3), output=NanoUSD(7))
    price = price_of(Model(provider="p", id="gpt-4o", price=override), OPENAI, DIGEST, NOW)
    assert price is not None
    assert price.table == "override:0123456789ab"
    assert price.cost(Usage(10, 10, cached=5)) == 100


def test_a_cost_is_rounded_up_once() -> None:
    price = PriceList("t", (Tier(0, input=300_000, cached=30_000, output=1),))
    assert price.cost(Usage(1, 1)) == 1
    assert price.cost(Usage(10, 0)) == 3


def test_a_long_input_pays_its_tier_and_the_reservation_is_the_dearest_that_applies() -> None:
    tiers = (Tier(0, 3_000_000, 0, 15_000_000), Tier(100, 6_000_000, 0, 22_000_000))
    price = PriceList("t", tiers)
    assert price.cost(Usage(100, 10)) == 100 * 3 + 10 * 15
    assert price.cost(Usage(101, 10)) == 101 * 6 + 10 * 22
    assert price.worst(101, 10) == price.cost(Usage(101, 10))
    assert price.worst(100, 10) == price.cost(Usage(100, 10))


def test_written_cache_and_audio_have_prices_of_their_own() -> None:
    claude = price_of(
        Model(provider="p", id="claude-sonnet-4-5"), Provider(kind="anthropic"), DIGEST, NOW
    )
    assert claude is not None
    million = 1_000_000
    # Small requests, so that the first tier holds: $3, $0.30 read, $3.75 and $6 written.
    assert claude.cost(Usage(1000, 0)) == 3 * million
    assert claude.cost(Usage(1000, 0, cached=1000)) == million * 3 // 10
    assert claude.cost(Usage(1000, 0, cache_write=1000)) == million * 375 // 100
    assert claude.cost(Usage(1000, 0, cache_write=1000, cache_write_1h=1000)) == 6 * million
    assert claude.worst(1000, 0) == 6 * million
    assert claude.worst(1000, 0, cache_writes=False) == 3 * million
    spoken = Price(
        input=NanoUSD(1), output=NanoUSD(2), audio_input=NanoUSD(40), audio_output=NanoUSD(80)
    )
    price = price_of(Model(provider="p", id="x", price=spoken), OPENAI, DIGEST, NOW)
    assert price is not None
    assert price.cost(Usage(10, 10, audio_input=4, audio_output=5)) == 6 + 160 + 10 + 400


def test_an_embeddings_model_needs_no_price_for_output() -> None:
    model = Model(provider="p", id="text-embedding-3-small")
    assert price_of(model, OPENAI, DIGEST, NOW) is None, "as a chat model it has no price"
    price = price_of(model, OPENAI, DIGEST, NOW, embeddings=True)
    assert price is not None
    assert price.cost(Usage(1_000_000, 0)) == 20_000_000


RATE = st.integers(0, 10**12)
SOME_RATE = st.none() | RATE
TOKENS = st.integers(0, 10**7)
CLAIMED = st.integers(-5, 2 * 10**7)


@given(data=st.data())
def test_no_usage_within_the_estimate_costs_more_than_was_reserved(data: st.DataObject) -> None:
    starts = data.draw(st.lists(TOKENS.filter(bool), max_size=3, unique=True))
    tiers = tuple(
        Tier(start, *data.draw(st.tuples(RATE, RATE, RATE, *[SOME_RATE] * 4)))
        for start in [0, *sorted(starts)]
    )
    price = PriceList("t", tiers)
    most_in, most_out = data.draw(TOKENS), data.draw(TOKENS)
    kinds = data.draw(st.tuples(*[CLAIMED] * 6))
    actual = Usage(data.draw(st.integers(0, most_in)), data.draw(st.integers(0, most_out)), *kinds)
    assert price.cost(actual) <= price.worst(most_in, most_out)
    plain = Usage(actual.input, actual.output, cached=actual.cached)
    assert price.cost(plain) <= price.worst(most_in, most_out, cache_writes=False, audio=False)
