"""Invoices: lines, tax by rate, totals."""

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from billing.money import parse, to_cents
from billing.tax import Buyer, percent


@dataclass(frozen=True)
class Line:
    text: str
    unit: str  # as the order form sends it
    quantity: int
    category: str = "standard"

    @property
    def net(self) -> Decimal:
        return to_cents(parse(self.unit) * self.quantity)


@dataclass(frozen=True)
class Invoice:
    number: str
    issued: date
    buyer: Buyer
    lines: tuple[Line, ...]
    customer: str = ""
    remark: str | None = None
    tags: tuple[str, ...] = field(default=())

    @property
    def net(self) -> Decimal:
        return sum((line.net for line in self.lines), Decimal(0))

    @property
    def tax(self) -> Decimal:
        """Tax is rounded once per rate, not once per line."""
        by_rate: dict[Decimal, Decimal] = {}
        for line in self.lines:
            rate = percent(self.buyer, line.category)
            by_rate[rate] = by_rate.get(rate, Decimal(0)) + line.net
        return sum((to_cents(net * rate / 100) for rate, net in by_rate.items()), Decimal(0))

    @property
    def gross(self) -> Decimal:
        return self.net + self.tax


def collect(lines, merged=None):
    merged = [] if merged is None else list(merged)
    for line in lines:
        if line.quantity:
            merged.append(line)
    return merged
