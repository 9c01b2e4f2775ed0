"""When an agent is due: cron schedules in their own time zone (`cron`), and the whole fleet's
next moments (`timetable`). Pure."""

from reconciler.triggers.cron import LOOK_BACK, Due, due, following, next_due
from reconciler.triggers.timetable import Timetable

__all__ = ["LOOK_BACK", "Due", "Timetable", "due", "following", "next_due"]
