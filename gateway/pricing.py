"""What a model's tokens cost: the bundled tables of `genai-prices`, or the policy's override.

Rates are integers of nano-dollars per *million* tokens, so that fractions of a nano-dollar per
token (cached input) stay exact; a cost is rounded up to a whole nano-dollar once, at the end.
The tables are the ones shipped with the installed package: nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any

from gateway.policy import Model, Provider
from gateway.values import NANO, Millis, NanoUSD

MILLION = 1_000_000
DEFAULT_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer.

    `input` includes `cached` (read from the provider's cache), `cache_write` (written to it, of
    which `cache_write_1h` for an hour) and `audio_input`, which do not overlap; `output` includes
    `reasoning` and `audio_output`.
    """

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    audio_output: int = 0


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates that hold when the input is larger than `above` tokens; nano-dollars per million.

    None: as `input` (audio that is spoken: as `output`; an hour's cache as any other).
    """

    above: int
    input: int
    cached: int
    output: int
    cache_write: int | None = None
    cache_write_1h: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None

    def cost(self, usage: Usage) -> int:
        """Millionths of a nano-dollar. A kind of which more is claimed than there are tokens at
        all counts only as far as there are."""
        whole, spoken = max(0, usage.input), max(0, usage.output)
        cached = _part(usage.cached, whole)
        written = _part(usage.cache_write, whole - cached)
        hour = _part(usage.cache_write_1h, written)
        heard = _part(usage.audio_input, whole - cached - written)
        audio = _part(usage.audio_output, spoken)
        write = _or(self.cache_write, self.input)
        return (
            (whole - cached - written - heard) * self.input
            + cached * self.cached
            + (written - hour) * write
            + hour * _or(self.cache_write_1h, write)
            + heard * _or(self.audio_input, self.input)
            + (spoken - audio) * self.output
            + audio * _or(self.audio_output, self.output)
        )

    def dearest(self, *, cache_writes: bool, audio: bool) -> tuple[int, int]:
        """The highest rate an input token, and an output token, can have."""
        inputs = [self.input, self.cached]
        outputs = [self.output]
        if cache_writes:
            inputs += [_or(self.cache_write, self.input), _or(self.cache_write_1h, self.input)]
        if audio:
            inputs.append(_or(self.audio_input, self.input))
            outputs.append(_or(self.audio_output, self.output))
        return max(inputs), max(outputs)


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
        return NanoUSD(-(-tier.cost(usage) // MILLION))

    def worst(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        cache_writes: bool = True,
        audio: bool = True,
    ) -> NanoUSD:
        """Upper bound of the cost of at most so many tokens: every token of the dearest kind, in
        the dearest tier that can apply.

        `cache_writes=False` only for a request that cannot write to a cache, `audio=False` only
        for one without sound: written input costs up to twice as much, sound up to forty times.
        """
        return self.worst_case(cache_writes=cache_writes, audio=audio)(input_tokens, output_tokens)

    def worst_case(self, *, cache_writes: bool, audio: bool) -> Callable[[int, int], NanoUSD]:
        """`worst` for several figures of one request."""
        bounds = _bounds(self, cache_writes, audio)

        def worst(input_tokens: int, output_tokens: int) -> NanoUSD:
            dearest = 0
            for above, dear_in, dear_out in bounds:
                if above == 0 or input_tokens > above:
                    dearest = max(dearest, input_tokens * dear_in + output_tokens * dear_out)
            return NanoUSD(-(-dearest // MILLION))

        return worst


@lru_cache(maxsize=1024)
def _bounds(prices: PriceList, cache_writes: bool, audio: bool) -> tuple[tuple[int, int, int], ...]:
    """(above, dearest input, dearest output) of each tier."""
    return tuple(
        (tier.above, *tier.dearest(cache_writes=cache_writes, audio=audio)) for tier in prices.tiers
    )


def _part(claimed: int, whole: int) -> int:
    return min(max(0, claimed), whole)


def _or(rate: int | None, otherwise: int) -> int:
    return otherwise if rate is None else rate


def price_of(
    model: Model,
    provider: Provider,
    policy_digest: str,
    now: Millis,
    *,
    embeddings: bool = False,
) -> PriceList | None:
    """The price of a target, or None when nobody knows it (then a budget refuses it).

    `embeddings`: the model answers with no tokens, so that a table without a price for output is
    complete.
    """
    if (price := model.price) is not None:
        return PriceList(
            f"override:{policy_digest[:12]}",
            (
                Tier(
                    above=0,
                    input=price.input * MILLION,
                    cached=_scaled(price.cached_input, price.input),
                    output=price.output * MILLION,
                    cache_write=_scaled(price.cache_write, price.input),
                    audio_input=_scaled(price.audio_input, price.input),
                    audio_output=_scaled(price.audio_output, price.output),
                ),
            ),
        )
    url = provider.base_url or DEFAULT_URLS.get(provider.kind)
    if provider.kind == "scripted" or url is None:
        return None
    return _from_table(model.id, url, now, embeddings=embeddings)


def _scaled(rate: int | None, otherwise: int) -> int:
    return _or(rate, otherwise) * MILLION


_FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
}


def _from_table(model_id: str, url: str, now: Millis, *, embeddings: bool) -> PriceList | None:
    # Imported late: the tables take a third of a second, and only the gateway process needs them.
    import genai_prices
    from genai_prices.data_snapshot import get_snapshot

    # By address, never by the model's name alone: a local server may call its model gpt-4o.
    try:
        _, found = get_snapshot().find_provider_model(model_id, None, None, url)
        prices = found.get_prices(datetime.fromtimestamp(now / 1000, tz=UTC))
    except LookupError:
        return None
    rates = {name: getattr(prices, field, None) for name, field in _FIELDS.items()}
    if rates["output"] is None and embeddings:
        rates["output"] = Decimal(0)
    if rates["input"] is None or rates["output"] is None:
        return None
    rates["cached"] = rates["cached"] or rates["input"]
    given = {name: rate for name, rate in rates.items() if rate is not None}
    starts = {0}
    for rate in given.values():
        starts.update(tier.start for tier in getattr(rate, "tiers", ()))
    return PriceList(
        f"genai-prices:{genai_prices.__version__}",
        tuple(
            Tier(above=start, **{name: _rate(rate, start) for name, rate in given.items()})
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
