"""Prices: the bundled table by address, the policy's override, tiers, rounding."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize("provider", [OPENAI, Provider(kind="scripted")])
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
