"""The monthly report: one row per invoice, a total, and what is overdue."""

from collections.abc import Iterable
from datetime import date
from decimal import Decimal

from billing.dates import Period, due
from billing.invoices import Invoice
from billing.money import shown


def remark(invoice: Invoice) -> str:
    """The remark on one line; empty when there is none."""
    return " ".join((invoice.remark or "").split())


def row(invoice: Invoice) -> str:
    parts = [invoice.number, invoice.customer, shown(invoice.gross), remark(invoice)]
    return " | ".join(part for part in parts if part)


def monthly(invoices: Iterable[Invoice], period: Period) -> list[str]:
    """Rows of the period's invoices by date and number, and the total at the end."""
    chosen = [invoice for invoice in invoices if period.contains(invoice.issued)]
    chosen.sort(key=lambda invoice: (invoice.issued, invoice.number))
    total = sum((invoice.gross for invoice in chosen), Decimal(0))
    return [*(row(invoice) for invoice in chosen), f"total {shown(total)}"]


def overdue(invoices: Iterable[Invoice], today: date) -> list[str]:
    """Numbers of invoices whose last day for payment is over."""
    return [invoice.number for invoice in invoices if due(invoice.issued) < today]
