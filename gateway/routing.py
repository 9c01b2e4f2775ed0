"""Which target serves a model call, and what to do when one fails.

A name stands for an ordered list of targets. The next one is tried when the last one did not
answer and the client has seen nothing yet. Whether a failed attempt costs anything is decided
here too: an attempt is given back only when the other side surely did nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.policy import Grants, Model, Policy, Provider
from gateway.refusals import Code, Refusal


@dataclass(frozen=True, slots=True)
class Target:
    """A concrete model: its policy name, how its provider calls it, and where that is."""

    name: str
    model: Model
    provider_name: str
    provider: Provider


class Failure(Exception):
    """An attempt that gave no (whole) answer.

    `done` says whether the other side may have worked, and so charged, for it: then the attempt
    is `unknown`, else `released`. `code` is what the client hears when no target is left.
    """

    def __init__(
        self,
        message: str,
        *,
        done: bool,
        code: Code = Code.PROVIDER_ERROR,
        fallback: bool = True,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.done = done
        self.code = code
        self.fallback = fallback
        self.retry_after = retry_after


def targets(name: str, grants: Grants, policy: Policy) -> tuple[Target, ...]:
    """The targets of a granted model name, in order of preference.

    Raises Refusal: unknown_model when the policy does not define it, not_granted when release ∩
    policy does not hold it.
    """
    found = policy.targets(name)
    if not found:
        known = ", ".join(sorted(grants.models)) or "none"
        raise Refusal(
            Code.UNKNOWN_MODEL,
            f"model {name!r} is not defined in the current policy; granted models: {known}",
        )
    if name not in grants.models:
        raise Refusal(
            Code.NOT_GRANTED,
            f"model {name!r} is not granted to this role by its release and the current policy; "
            f"granted models: {', '.join(sorted(grants.models)) or 'none'}",
        )
    # A release was gated on the models its name stood for then. Pointing the name at another
    # model is a change of behaviour: it makes a new release, and must not reach this one.
    admitted = tuple(
        Target(target, policy.models[target], policy.models[target].provider, provider)
        for target in found
        if target in grants.models
        and (provider := policy.providers.get(policy.models[target].provider)) is not None
    )
    if not admitted:
        raise Refusal(
            Code.NOT_GRANTED,
            f"model {name!r} stands for {', '.join(found)} today, none of which this release was "
            "gated on; it goes on when a release with the new model is promoted",
        )
    return admitted


def failure_of_status(status: int, where: str, text: str, retry_after: int | None) -> Failure:
    """What an HTTP error status of a provider means.

    429, 500, 503 and 529 (Anthropic: overloaded) are the provider saying that it did not do the
    work. 502 and 504 come from a proxy in front of it that lost the answer: the work may have
    been done and charged. Other 4xx are final, and the same everywhere, except 401, 403, 404 and
    408 which say that *this* target is unusable.
    """
    if status == 429:
        return Failure(
            f"{where} is rate limited",
            done=False,
            code=Code.PROVIDER_BUSY,
            retry_after=retry_after,
        )
    if status in (401, 403):
        # The body is not repeated: providers quote parts of the key in it.
        return Failure(f"{where} refused the gateway's key (HTTP {status})", done=False)
    if status in (404, 408):
        return Failure(f"{where} answered HTTP {status}: {text}", done=False)
    if 400 <= status < 500:
        return Failure(
            f"{where} refused the request (HTTP {status}): {text}",
            done=False,
            code=Code.INVALID_REQUEST,
            fallback=False,
        )
    return Failure(f"{where} answered HTTP {status}: {text}", done=status in (502, 504))
