"""What a model's tokens cost: the bundled tables of `genai-prices`, or the policy's override.

Rates are integers of nano-dollars per *million* tokens, so that fractions of a nano-dollar per
token (cached input) stay exact; a cost is rounded up to a whole nano-dollar once, at the end.
The tables are the ones shipped with the installed package: nothing is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

from gateway.policy import Model, Provider
from gateway.values import NANO, Millis, NanoUSD

MILLION = 1_000_000
DEFAULT_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer. `input` includes `cached`; `output` includes `reasoning`."""

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates that hold when the input is larger than `above` tokens; nano-dollars per million."""

    above: int
    input: int
    cached: int
    output: int


@dataclass(frozen=True, slots=True)
class PriceList:
    """The price of one target and the table it is from (`price_table` of the ledger)."""

    table: str
    tiers: tuple[Tier, ...]

    def cost(self, usage: Usage) -> NanoUSD:
        """Nano-dollars of this usage, rounded up. The whole request pays the tier it falls in."""
        tier = self.tiers[0]
        for candidate in self.tiers:
            if usage.input > candidate.above:
                tier = candidate
        millionths = (
            (usage.input - usage.cached) * tier.input
            + usage.cached * tier.cached
            + usage.output * tier.output
        )
        return NanoUSD(-(-millionths // MILLION))

    def worst(self, input_tokens: int, output_tokens: int) -> NanoUSD:
        """Upper bound of the cost of at most so many tokens: nothing cached, dearest tier."""
        return max(
            NanoUSD(-(-(input_tokens * t.input + output_tokens * t.output) // MILLION))
            for t in self.tiers
            if t.above == 0 or input_tokens > t.above
        )


def price_of(model: Model, provider: Provider, policy_digest: str, now: Millis) -> PriceList | None:
    """The price of a target, or None when nobody knows it (then a budget refuses it)."""
    if model.price is not None:
        cached = model.price.cached_input
        return PriceList(
            f"override:{policy_digest[:12]}",
            (
                Tier(
                    0,
                    model.price.input * MILLION,
                    (model.price.input if cached is None else cached) * MILLION,
                    model.price.output * MILLION,
                ),
            ),
        )
    if provider.kind == "scripted":
        return None
    return _from_table(model.id, provider, now)


def _from_table(model_id: str, provider: Provider, now: Millis) -> PriceList | None:
    # Imported late: the tables take a third of a second, and only the gateway process needs them.
    import genai_prices
    from genai_prices.data_snapshot import get_snapshot

    # By address, never by the model's name alone: a local server may call its model gpt-4o.
    url = provider.base_url or DEFAULT_URLS[provider.kind]
    try:
        _, found = get_snapshot().find_provider_model(model_id, None, None, url)
        prices = found.get_prices(datetime.fromtimestamp(now / 1000, tz=UTC))
    except LookupError:
        return None
    rates = {
        "input": getattr(prices, "input_mtok", None),
        "output": getattr(prices, "output_mtok", None),
    }
    if rates["input"] is None or rates["output"] is None:
        return None
    rates["cached"] = getattr(prices, "cache_read_mtok", None) or rates["input"]
    starts = {0}
    for rate in rates.values():
        starts.update(tier.start for tier in getattr(rate, "tiers", ()))
    return PriceList(
        f"genai-prices:{genai_prices.__version__}",
        tuple(
            Tier(
                above=start,
                input=_rate(rates["input"], start),
                cached=_rate(rates["cached"], start),
                output=_rate(rates["output"], start),
            )
            for start in sorted(starts)
        ),
    )


def _rate(price: Any, start: int) -> int:
    """Nano-dollars per million tokens in the tier that begins at `start`."""
    dollars: Decimal = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):
        if tier.start <= start:
            dollars = tier.price
    return int((Decimal(dollars) * NANO).to_integral_value(rounding=ROUND_CEILING))
