"""What starts a run: the `trigger` beside an agent.

Every kind of the language is read here, also those that nothing serves yet: an agent that waits
for an event is described as that, and says in a warning that only a person starts it for now.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from reconciler.config.models.fields import Document, Line, Name

KINDS = ("schedule", "manual", "event", "webhook", "after", "api")
SERVED = frozenset({"schedule", "manual"})
"""Kinds that start runs in this version."""


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("not a time zone; write it like Europe/Berlin or UTC") from None
    return value


@lru_cache(maxsize=1024)
def _schedule(value: str) -> str:
    """A cron expression that is due some time. Agents share schedules, and looking is slow."""
    try:
        # Any start will do: the question is only whether the expression is ever due.
        next(CronSim(value, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(
            f"not a cron schedule: {error}; write minute hour day month weekday"
        ) from None
    except StopIteration:
        raise ValueError("this schedule is never due") from None
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Trigger(Document):
    """When a run starts. Exactly one of its kinds."""

    schedule: Annotated[Line, AfterValidator(_schedule)] | None = None
    """Cron expression: minute hour day-of-month month day-of-week."""
    timezone: Annotated[Line, AfterValidator(_timezone)] = "UTC"
    """Time zone of the schedule."""
    manual: bool = False
    """Only when somebody asks (`interlock run`); short form: `trigger: manual`."""
    event: Line | None = None
    """Name of an event that somebody sends. Not served by this version."""
    webhook: Line | None = None
    """Name of a webhook that somebody calls. Not served by this version."""
    after: Annotated[list[Name], Field(min_length=1), BeforeValidator(_listed)] | None = None
    """Agent or agents whose accepted runs start this one. Not served by this version."""
    api: bool = False
    """When a program asks; short form: `trigger: api`. Not served by this version."""

    @property
    def kind(self) -> str:
        """The one that is given."""
        return next(kind for kind in KINDS if getattr(self, kind))

    @model_validator(mode="after")
    def _one(self) -> Trigger:
        given = [kind for kind in KINDS if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(KINDS[:-1])} or {KINDS[-1]}")
        if "timezone" in self.model_fields_set and self.schedule is None:
            raise ValueError("a timezone belongs to a schedule")
        return self


def short_trigger(value: Any) -> Any:
    """The mapping that a short form means: `manual`, `api`, a cron expression, `cron:`."""
    if value in ("manual", "api"):
        return {value: True}
    if isinstance(value, str) and len(value.split()) == 5:
        return {"schedule": value}
    if isinstance(value, dict) and "cron" in value and "schedule" not in value:
        return {("schedule" if key == "cron" else key): item for key, item in value.items()}
    return value
