import unittest
from datetime import date
from decimal import Decimal

from billing.invoices import Invoice, Line, collect
from billing.tax import Buyer


def invoice(*lines, buyer=Buyer("DE")):
    return Invoice("2026-0001", date(2026, 3, 2), buyer, lines)


class InvoiceTest(unittest.TestCase):
    def test_net_and_tax_make_gross(self):
        made = invoice(Line("Chai", "18.00", 2))
        self.assertEqual((made.net, made.tax, made.gross), (36, Decimal("6.84"), Decimal("42.84")))

    def test_tax_is_rounded_once_per_rate(self):
        made = invoice(Line("Pen", "0.13", 1), Line("Pencil", "0.13", 1))
        self.assertEqual(made.tax, Decimal("0.05"))

    def test_a_business_abroad_gets_no_tax(self):
        made = invoice(Line("Chai", "18.00", 1), buyer=Buyer("AT", business=True))
        self.assertEqual(made.gross, Decimal("18.00"))


class CollectTest(unittest.TestCase):
    def test_empty_lines_are_left_out(self):
        line = Line("Chai", "18.00", 1)
        self.assertEqual(collect([line, Line("Chang", "19.00", 0)]), [line])
