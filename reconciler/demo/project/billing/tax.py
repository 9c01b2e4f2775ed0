"""Value-added tax: the seller's country decides, unless the buyer is a business abroad."""

from dataclasses import dataclass
from decimal import Decimal

HOME = "DE"
PERCENT = {
    "DE": {"standard": Decimal(19), "reduced": Decimal(7)},
    "AT": {"standard": Decimal(20), "reduced": Decimal(10)},
    "FR": {"standard": Decimal(20), "reduced": Decimal("5.5")},
}


class UnknownCountry(LookupError):
    """We do not sell to this country yet."""


@dataclass(frozen=True)
class Buyer:
    country: str
    business: bool = False

    @property
    def owes_the_tax(self) -> bool:
        """Reverse charge: a business abroad pays the tax itself."""
        return self.business and self.country != HOME


def percent(buyer: Buyer, category: str) -> Decimal:
    """The rate in percent; zero with reverse charge."""
    if buyer.owes_the_tax:
        return Decimal(0)
    try:
        rates = PERCENT[buyer.country]
    except KeyError:
        raise UnknownCountry(f"no tax rates for {buyer.country}") from None
    return rates[category]
