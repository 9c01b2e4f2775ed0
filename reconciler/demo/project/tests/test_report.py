import unittest
from datetime import date

from billing.dates import month
from billing.invoices import Invoice, Line
from billing.report import monthly, overdue, remark
from billing.tax import Buyer


def invoice(number, issued, **more):
    return Invoice(number, issued, Buyer("DE"), (Line("Chai", "100.00", 1),), **more)


class ReportTest(unittest.TestCase):
    def test_rows_by_date_and_a_total(self):
        late = invoice("2026-0002", date(2026, 3, 20), customer="Ana")
        early = invoice("2026-0001", date(2026, 3, 2), customer="Bo")
        rows = monthly([late, early], month("2026-03"))
        self.assertEqual(rows[0], "2026-0001 | Bo | 119.00 EUR")
        self.assertEqual(rows[-1], "total 238.00 EUR")

    def test_a_remark_is_put_on_one_line(self):
        made = invoice("2026-0001", date(2026, 3, 2), remark="back\n  door")
        self.assertEqual(remark(made), "back door")

    def test_overdue_after_the_last_day_for_payment(self):
        made = invoice("2026-0001", date(2026, 3, 2))
        self.assertEqual(overdue([made], date(2026, 3, 16)), [])
        self.assertEqual(overdue([made], date(2026, 3, 17)), ["2026-0001"])
