"""Every verb that does something, once: the CLI today, comments and the web later call these.

Each module is one family of them and is imported by whoever needs it: the on-call's verbs bring the
whole tick along (a second), which a look into a work directory must not pay for.
"""

from reconciler.operations.outcome import Done, Refused

__all__ = ["Done", "Refused"]
