"""The errors this program knows, and the exit code each of them means."""

from __future__ import annotations

from gateway.database import DatabaseError
from reconciler.forge.model import ForgeRefused, ForgeUnavailable, MalformedPull
from reconciler.operations import Refused
from reconciler.process.lock import Busy
from reconciler.process.loop import Superseded
from reconciler.process.supervisor import EnvironmentLacks
from reconciler.record.state import StateError
from reconciler.source.errors import SourceError

NEGATIVE = 1
LACKING = 3


def exit_code(error: Exception) -> int | None:
    """1: a negative answer. 3: the environment lacks something. None: a bug, not to be hidden."""
    if isinstance(error, Refused | ForgeRefused | MalformedPull | Busy | Superseded | StateError):
        return NEGATIVE
    if isinstance(error, EnvironmentLacks | SourceError | ForgeUnavailable | DatabaseError):
        return LACKING
    return None
