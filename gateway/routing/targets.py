"""Which concrete models a name stands for, for this caller, and how each is to be asked.

A name stands for an ordered list of targets; in which order they are tried is the router's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from gateway.policy import Grants, Model, Policy, Provider, VirtualModel
from gateway.refusals import Code, Refusal

DECIMALS: Final = frozenset(
    {
        "frequency_penalty",
        "min_p",
        "mirostat_eta",
        "mirostat_tau",
        "presence_penalty",
        "repeat_penalty",
        "repetition_penalty",
        "temperature",
        "tfs_z",
        "top_a",
        "top_p",
        "typical_p",
    }
)
"""Parameters that providers want as numbers and people write with a point. The policy has no
floats (they have no canonical form), so there they are strings."""


@dataclass(frozen=True, slots=True)
class Target:
    """A concrete model: its policy name, how its provider calls it, and where that is."""

    name: str
    model: Model
    provider_name: str
    provider: Provider


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


def merged_parameters(model: Model, virtual: VirtualModel | None, target: str) -> dict[str, Any]:
    """What is put over the caller's own parameters when `target` is asked.

    The virtual model's for this target win over the model's own, key by key. The decimals of
    `DECIMALS` become numbers, also inside objects (Ollama's `options`).
    """
    over = virtual.parameters.get(target, {}) if virtual else {}
    return _numbers({**model.parameters, **over})


def _numbers(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _numbers(value)
        if isinstance(value, Mapping)
        else _number(value)
        if name in DECIMALS and isinstance(value, str)
        else value
        for name, value in parameters.items()
    }


def _number(text: str) -> float | str:
    """What is no number stays as it is: the provider says so better than we could."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if isfinite(number) else text
