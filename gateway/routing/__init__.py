"""Which target serves a model call, and what to do when one fails.

    targets   what a name stands for, for this caller        failures  what a failure means
    router    the order, and the way from one to the next    health    what is known of a target

The router decides and does nothing: the door asks a `Route` for the next step, takes it, and says
what came of it. Time and chance are passed in. In words: docs/policies/routing.md.
"""

from gateway.routing.failures import Failure, failure_of_status
from gateway.routing.health import State
from gateway.routing.router import Exhausted, Route, Router, Standing, Try, Wait
from gateway.routing.targets import Target, merged_parameters, targets

__all__ = [
    "Exhausted",
    "Failure",
    "Route",
    "Router",
    "Standing",
    "State",
    "Target",
    "Try",
    "Wait",
    "failure_of_status",
    "merged_parameters",
    "targets",
]
