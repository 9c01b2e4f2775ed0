"""How much may come in how much time, and whose turn it is when a provider is busy.

`Limiter` holds the platform's rate limits (`gateway.policy.RateLimit`): it decides, in memory and
in about a microsecond, whether a call may be made now. `Lanes` hold a provider's places
(`Provider.max_concurrent`): when all are taken, teams take turns, so that a team that floods waits
for itself and not the others for it. What the numbers promise: docs/policies/rate-limits.md.
"""

from gateway.limits.lanes import Lanes
from gateway.limits.limiter import Admitted, Limiter, MeterRow, Refused, Traits

__all__ = ["Admitted", "Lanes", "Limiter", "MeterRow", "Refused", "Traits"]
