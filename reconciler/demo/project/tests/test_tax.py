import unittest
from decimal import Decimal

from billing.tax import Buyer, UnknownCountry, percent


class TaxTest(unittest.TestCase):
    def test_a_consumer_pays_the_rate_of_the_country(self):
        self.assertEqual(percent(Buyer("FR"), "reduced"), Decimal("5.5"))

    def test_a_business_abroad_owes_the_tax_itself(self):
        self.assertEqual(percent(Buyer("AT", business=True), "standard"), Decimal(0))

    def test_an_unknown_country_is_said_clearly(self):
        with self.assertRaises(UnknownCountry):
            percent(Buyer("CH"), "standard")
