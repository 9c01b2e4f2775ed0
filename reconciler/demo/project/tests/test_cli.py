import contextlib
import io
import unittest
from pathlib import Path

from billing.cli import main

SAMPLE = str(Path(__file__).parent.parent / "sample.json")


class CliTest(unittest.TestCase):
    def test_the_report_of_a_month(self):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = main(["report", SAMPLE, "2026-02"])
        self.assertEqual((code, out.getvalue()), (0, "total 0.00 EUR\n"))

    def test_wrong_usage(self):
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(main(["print"]), 2)
