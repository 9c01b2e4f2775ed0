"""Compares the pinned requirements with known advisories.

Exit 0: nothing known · 1: findings, one a line · 2: the advisories could not be read.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
ADVISORIES = ROOT / "tools" / "advisories.json"
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[0-9.]+)", re.MULTILINE)


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def findings(requirements: str, advisories: list[dict[str, str]]) -> list[str]:
    """One line for each pinned package that is older than the version with the fix."""
    pins = {found["name"].lower(): found["version"] for found in PIN.finditer(requirements)}
    return [
        f"{item['severity']}: {item['package']} {pins[item['package']]} has {item['id']}"
        f" ({item['summary']}), fixed in {item['fixed']}"
        for item in advisories
        if item["package"] in pins and release(pins[item["package"]]) < release(item["fixed"])
    ]


def main() -> int:
    try:
        database = json.loads(ADVISORIES.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or "no reason given"
        print(f"advisory database unreachable ({ADVISORIES.name}: {reason})")
        return 2
    found = findings(REQUIREMENTS.read_text(encoding="utf-8"), database["advisories"])
    print(f"{len(found)} findings, advisories of {database['updated']}")
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
