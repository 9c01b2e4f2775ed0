"""What drives a run. `builtin` is the loop on the trusted side; others may join it."""

from runner.harness.builtin import BuiltinHarness
from runner.harness.scope import Meter, Scope, Sent

__all__ = ["BuiltinHarness", "Meter", "Scope", "Sent"]
