"""docs/formats/run.md says what the models say."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest
from pydantic import BaseModel

from runner.spec import RunOutcome, RunSpec, StallKind, StopReason
from runner.stops import ALTERNATING_TIMES, MONOLOGUE_TIMES, SAME_ERROR_TIMES, SAME_RESULT_TIMES

DOC = Path(__file__).resolve().parents[2] / "docs" / "formats" / "run.md"


def first_cells(heading: str) -> list[str]:
    section = DOC.read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]


@pytest.mark.parametrize("heading, model", [("Spec", RunSpec), ("Outcome", RunOutcome)])
def test_the_documented_fields_are_the_models(heading: str, model: type[BaseModel]) -> None:
    assert first_cells(heading) == list(model.model_fields)


@pytest.mark.parametrize("heading, enum", [("Stop reasons", StopReason), ("Stalls", StallKind)])
def test_the_documented_reasons_are_the_code(heading: str, enum: type[StrEnum]) -> None:
    assert first_cells(heading) == [str(member) for member in enum]


def test_the_documented_thresholds_are_the_code() -> None:
    section = DOC.read_text().split("## Stalls\n", 1)[1]
    numbers = [int(n) for n in re.findall(r"\| (\d) ", section)]
    assert numbers == [SAME_RESULT_TIMES, SAME_ERROR_TIMES, MONOLOGUE_TIMES, ALTERNATING_TIMES]
