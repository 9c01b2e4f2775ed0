"""A real gateway process, principals for it, and fake providers with faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.stage import FakeProvider, Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A state directory with a database; `stage.start()` runs the gateway on it."""
    with Stage(tmp_path) as built:
        yield built


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    """A provider that answers as told, in both dialects."""
    with FakeProvider() as provider:
        yield provider
