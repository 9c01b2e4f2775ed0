"""`python3 -m billing.cli report FILE MONTH`: the monthly report of a JSON file of invoices."""

import json
import sys
from datetime import date
from pathlib import Path

from billing.dates import month
from billing.invoices import Invoice, Line, collect
from billing.report import monthly
from billing.tax import Buyer

USAGE = "usage: python3 -m billing.cli report FILE MONTH"


def load(text: str) -> list[Invoice]:
    """Invoices from JSON, as the order system exports them."""
    return [
        Invoice(
            number=item["number"],
            issued=date.fromisoformat(item["issued"]),
            buyer=Buyer(item["country"], item.get("business", False)),
            lines=tuple(collect(Line(**line) for line in item["lines"])),
            customer=item.get("customer", ""),
            remark=item.get("remark"),
        )
        for item in json.loads(text)
    ]


def main(arguments: list[str]) -> int:
    if len(arguments) != 3 or arguments[0] != "report":
        print(USAGE, file=sys.stderr)
        return 2
    invoices = load(Path(arguments[1]).read_text(encoding="utf-8"))
    print("\n".join(monthly(invoices, month(arguments[2]))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
