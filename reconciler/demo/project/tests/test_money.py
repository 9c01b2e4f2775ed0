import unittest
from decimal import Decimal

from billing.money import BadAmount, parse, share, shown, to_cents


class MoneyTest(unittest.TestCase):
    def test_grouping_commas_are_ignored(self):
        self.assertEqual(parse(" 1,234.50"), Decimal("1234.50"))

    def test_a_text_that_is_no_amount_is_refused(self):
        with self.assertRaises(BadAmount):
            parse("twelve")

    def test_half_a_cent_is_rounded_up(self):
        self.assertEqual(to_cents(Decimal("1.005")), Decimal("1.01"))

    def test_shares_add_up(self):
        parts = share(Decimal("10.00"), 3)
        self.assertEqual(parts, [Decimal("3.34"), Decimal("3.33"), Decimal("3.33")])

    def test_amounts_are_written_with_grouping(self):
        self.assertEqual(shown(Decimal("1234.5")), "1,234.50 EUR")
