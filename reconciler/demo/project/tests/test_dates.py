import unittest
from datetime import date

from billing.dates import due, month


class PeriodTest(unittest.TestCase):
    def test_a_month_starts_with_its_first_day(self):
        self.assertTrue(month("2026-03").contains(date(2026, 3, 1)))

    def test_the_last_day_belongs_to_the_month(self):
        self.assertEqual(month("2026-02").contains(date(2026, 2, 28)), True)

    def test_the_next_month_does_not(self):
        self.assertFalse(month("2026-02").contains(date(2026, 3, 1)))


class DueTest(unittest.TestCase):
    def test_two_weeks(self):
        self.assertEqual(due(date(2026, 3, 2)), date(2026, 3, 16))

    def test_a_weekend_moves_it_to_monday(self):
        self.assertEqual(due(date(2026, 3, 7)), date(2026, 3, 23))
