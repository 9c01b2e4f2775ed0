"""Secrets leave a text before it enters the journal, and so never reach a trace or a commit.

The one list of what looks like a key is the gateway's (`gateway.redact`).
"""

from gateway.redact import REDACTED, Redactor

__all__ = ["REDACTED", "Redactor"]
