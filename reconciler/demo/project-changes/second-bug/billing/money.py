"""Money is a Decimal with two places; it is rounded half up, once, where an amount is made."""

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

CENT = Decimal("0.01")


class BadAmount(ValueError):
    """A text that is not an amount of money."""


def parse(text: str) -> Decimal:
    """The exact value of a text such as "1.005"; blanks and grouping commas are ignored."""
    cleaned = text.replace(",", "").strip()
    try:
        return Decimal(cleaned)
    except (InvalidOperation, ValueError):
        raise BadAmount(f"{text!r} is not an amount") from None


def to_cents(amount: Decimal) -> Decimal:
    """Rounded half up to the cent."""
    return amount.quantize(CENT, ROUND_HALF_UP)


def share(amount: Decimal, parts: int) -> list[Decimal]:
    """Splits an amount so that the parts add up; the first ones take the cents left over."""
    if parts < 1:
        raise ValueError("an amount is split into at least one part")
    cents = int(to_cents(amount) / CENT)
    each, left = divmod(cents, parts)
    return [CENT * (each + (index < left)) for index in range(parts)]


def shown(amount: Decimal, currency: str = "EUR") -> str:
    """As people read it: `1,234.50 EUR`."""
    return f"{to_cents(amount):,} {currency}"
