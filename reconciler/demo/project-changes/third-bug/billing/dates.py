"""Billing periods: calendar months, whose first and last day both belong to them."""

import calendar
from dataclasses import dataclass
from datetime import date, timedelta

PAYMENT_DAYS = 14


@dataclass(frozen=True)
class Period:
    first: date
    last: date

    def contains(self, day: date) -> bool:
        first, last = self.first, self.last
        return first <= day <= last


def month(text: str) -> Period:
    """The period of a text such as "2026-03"."""
    year, number = (int(part) for part in text.split("-"))
    return Period(date(year, number, 1), date(year, number, calendar.monthrange(year, number)[1]))


def due(issued: date) -> date:
    """The last day for payment; a weekend moves it to Monday."""
    day = issued + timedelta(days=PAYMENT_DAYS)
    return day + timedelta(days={5: 2, 6: 1}.get(day.weekday(), 0))
