"""In which direction a setting is looser: one table, and whatever it does not know is looser.

The table decides what needs an approval, so it fails closed: a field that it does not name counts
as loosened when it changes, until somebody writes down which way is safe. docs/plan.md shows it to
people; a test sees that no kind is missing there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.values import Json, canonical_json
from reconciler.plan import phrases
from reconciler.plan.globs import covers, newly_allowed
from reconciler.plan.phrases import record, texts, tick, ticks, whole

Rule = Callable[[Json, Json], bool]
"""(before, after) → whether after allows more. Both differ; None stands for not given."""


def higher(before: Json, after: Json) -> bool:
    """A limit: raised or removed. None is no limit."""
    return after is None or (before is not None and whole(after) > whole(before))


def lower(before: Json, after: Json) -> bool:
    """A demand: lowered or removed."""
    return after is None or (before is not None and whole(after) < whole(before))


def more(before: Json, after: Json) -> bool:
    """A list of what is allowed: something was added."""
    return bool(set(texts(after)) - set(texts(before)))


def more_or_none(before: Json, after: Json) -> bool:
    """Who decides: somebody was added; or nobody is left, and others decide instead."""
    return more(before, after) or not texts(after)


def fewer(before: Json, after: Json) -> bool:
    """A list of what is watched: something was taken out."""
    return bool(set(texts(before)) - set(texts(after)))


def wider(before: Json, after: Json) -> bool:
    """Globs of what is allowed: something new matches. None allows everything."""
    return bool(
        newly_allowed(
            None if before is None else texts(before), None if after is None else texts(after)
        )
    )


def less_covered(before: Json, after: Json) -> bool:
    """Globs of what is watched: something no longer matches."""
    return wider(texts_or_none(after), texts_or_none(before))


def narrower(before: Json, after: Json) -> bool:
    """A glob of whom a rule is about: it no longer covers all that it did. None covers all."""
    return not covers("*" if after is None else str(after), "*" if before is None else str(before))


def turned_on(_before: Json, after: Json) -> bool:
    """A permission."""
    return bool(after)


def turned_off(_before: Json, after: Json) -> bool:
    """A protection."""
    return not after


def never(_before: Json, _after: Json) -> bool:
    """A change that allows nothing."""
    return False


def always(_before: Json, _after: Json) -> bool:
    """A change whose direction nobody can tell."""
    return True


def unless_first(before: Json, _after: Json) -> bool:
    """A change whose direction nobody can tell; giving it where nothing was given is stricter."""
    return before is not None


def less_dangerous(before: Json, after: Json) -> bool:
    """A tool's access: a danger was taken off the list."""
    return bool((set(texts(before)) - {"read"}) - set(texts(after)))


def less_secret(before: Json, after: Json) -> bool:
    """A sensitivity was lowered."""
    order = ("public", "internal", "secret")
    known = before in order and after in order
    return not known or order.index(str(after)) < order.index(str(before))


def less_enforced(before: Json, after: Json) -> bool:
    """A mode: enforce → enforce_but_ignore_on_error → audit."""
    order = ("audit", "enforce_but_ignore_on_error", "enforce")
    known = before in order and after in order
    return not known or order.index(str(after)) < order.index(str(before))


def shorter_window(before: Json, after: Json) -> bool:
    """A budget's window. The same limit over a longer calendar window allows no more, but only
    where windows nest: a week may lie in two months."""
    nested = {("day", "week"), ("day", "month"), ("day", "quarter"), ("month", "quarter")}
    return (before, after) not in nested


_AS = {
    "cached_input": "input",
    "cache_write": "input",
    "audio_input": "input",
    "audio_output": "output",
}
"""Price that is not given → the one that holds then."""


def lower_price(before: Json, after: Json) -> bool:
    """A price override: whatever is not surely as high lets budgets count less."""
    if before is None or after is None:
        return True
    old, new = _prices(before), _prices(after)
    return any(new[kind] < old[kind] for kind in old)


def _prices(value: Json) -> dict[str, int]:
    """Every kind of token with what it costs."""
    given = record(value)
    found = {kind: whole(given.get(kind)) for kind in ("input", "output")}
    for kind, otherwise in _AS.items():
        found[kind] = found[otherwise] if given.get(kind) is None else whole(given.get(kind))
    return found


def other_or_more(before: Json, after: Json) -> bool:
    """A list that stands for something unknown when it is not given: only a part of it is less."""
    return before is None or after is None or more(before, after)


def broader(before: Json, after: Json) -> bool:
    """A glob of whom a permission is for: it covers others than it did. None covers all."""
    return not covers("*" if before is None else str(before), "*" if after is None else str(after))


def shared_by_more(before: Json, after: Json) -> bool:
    """Who shares an answer: agent → team → fleet."""
    order = ("agent", "team", "fleet")
    known = before in order and after in order
    return not known or order.index(str(after)) > order.index(str(before))


def freer_arguments(before: Json, after: Json) -> bool:
    """Globs by argument of a granted tool. That the tool is new or gone is told elsewhere."""
    if before is None or after is None:
        return False
    old, new = record(before), record(after)
    return any(wider(globs, new.get(argument)) for argument, globs in old.items())


def texts_or_none(value: Json) -> Json:
    """A list stays, anything else is None."""
    return value if isinstance(value, list) else None


@dataclass(frozen=True, slots=True)
class Direction:
    """How one field is compared, and how its values are said. `group`: its fields are compared one
    by one while it is there on both sides; losing it is looser, getting it is stricter."""

    rule: Rule
    say: Callable[[Json], str] = phrases.plain
    group: bool = False


_D = Direction
_MATCH = {
    "match.agent": _D(narrower),
    "match.team": _D(narrower),
    "match.model": _D(narrower),
    "match.tool": _D(narrower),
    "mode": _D(less_enforced),
}
_SENT = {
    "key": _D(always, phrases.secret),
    "hosts": _D(more),
    "timeout_seconds": _D(higher, phrases.seconds),
}
_HARNESS = {
    "harness.max_steps": _D(higher, phrases.number),
    "harness.max_tokens_per_run": _D(higher, phrases.number),
    "harness.max_cost_per_run": _D(higher, phrases.money),
    "harness.max_wall_time": _D(higher, phrases.duration),
    "harness.max_output_tokens": _D(higher, phrases.number),
    "sandbox.cpus": _D(higher, phrases.thousandths),
    "sandbox.memory": _D(higher, phrases.size),
    "sandbox.pids": _D(higher, phrases.number),
    "sandbox.disk": _D(higher, phrases.size),
    "sandbox.exec_timeout": _D(higher, phrases.duration),
    "approvals.*": _D(turned_off),
    "model": _D(unless_first),
    "rollout": _D(unless_first),
}

TABLE: Mapping[str, Mapping[str, Direction]] = {
    "provider": {
        **_SENT,
        "kind": _D(always),
        "base_url": _D(always),
        "script": _D(always, lambda _: "other rules"),
        "tape": _D(always, phrases.calls),
        "apis": _D(other_or_more),
        "api_version": _D(always),
        "max_concurrent": _D(higher, phrases.number),
        "max_waiting": _D(higher, phrases.number),
    },
    "model": {
        "provider": _D(always),
        "id": _D(always),
        "price": _D(lower_price),
        "max_output_tokens": _D(higher, phrases.number),
        "parameters": _D(always),
        "retires": _D(never),
    },
    "virtual-model": {
        "targets": _D(more),
        "routing": _D(never),
        "weights": _D(never),
        "parameters": _D(always),
        "retry.attempts": _D(higher, phrases.number),
        "retry.backoff_ms": _D(lower, phrases.duration),
        "retry.max_backoff_ms": _D(lower, phrases.duration),
        "retry.on": _D(more),
        "fallback_on": _D(more),
        "first_token_ms": _D(higher, phrases.duration),
        "sticky": _D(never),
    },
    "server": {
        **_SENT,
        "url": _D(always),
        "header": _D(always),
        "command": _D(always, phrases.command),
        "env": _D(always),
        "oauth": _D(always),
        "max_result_bytes": _D(higher, phrases.size),
        "listing": _D(never),
    },
    "tool": {
        "access": _D(less_dangerous),
        "idempotent": _D(turned_on, phrases.switch),
        "trusted": _D(turned_on, phrases.switch),
        "sensitivity": _D(less_secret),
        "description": _D(never),
        "input_schema": _D(always, lambda _: "another schema"),
    },
    "fingerprint": {"": _D(always)},
    "destructive": {"": _D(less_covered)},
    "budget": {
        "limit": _D(higher, phrases.money),
        "tokens": _D(higher, phrases.number),
        "requests": _D(higher, phrases.number),
        "window": _D(shorter_window),
        "agent": _D(narrower),
        "team": _D(narrower),
        "user": _D(narrower),
        "model": _D(narrower),
        "tag": _D(narrower),
        "purpose": _D(narrower),
        "mode": _D(less_enforced),
        "alert_at": _D(fewer),
        "each_agent": _D(turned_on, phrases.switch),
    },
    "rate-limit": {
        **_MATCH,
        "requests": _D(higher, phrases.number),
        "tokens": _D(higher, phrases.number),
        "window_ms": _D(lower, phrases.duration),
        "burst": _D(higher, phrases.number),
        "each_agent": _D(turned_on, phrases.switch),
    },
    "guardrail": {
        **_MATCH,
        "hooks": _D(fewer),
        "check": _D(always, lambda _: "another check"),
        "action": _D(always),
    },
    "cache": {
        "ttl_ms": _D(higher, phrases.duration),
        "namespace": _D(shared_by_more),
        "match.agent": _D(broader),
        "match.team": _D(broader),
        "match.model": _D(broader),
        "match.tool": _D(always),
    },
    "principal": {
        "team": _D(always),
        "models": _D(more),
        "tools": _D(more),
        "args.*": _D(freer_arguments),
        "approvals": _D(fewer),
        "max_output_tokens": _D(higher, phrases.number),
        "tags": _D(fewer),
    },
    "rollout": {
        "name": _D(never),
        "gate": _D(always, group=True),
        "gate.delta_permille": _D(higher, phrases.thousandths),
        "gate.looks": _D(always),
        "gate.first_release.min_pass_rate_permille": _D(lower, phrases.percent),
        "gate.first_release.approval": _D(turned_off, phrases.switch),
        "gate.cost_ratio_permille": _D(higher, phrases.thousandths),
        "gate.latency_ratio_permille": _D(higher, phrases.thousandths),
        "gate.max_errors": _D(higher, phrases.number),
        "canary": _D(always, group=True),
        "canary.count": _D(lower, phrases.number),
        "canary.horizon": _D(always),
        "canary.max_age_ms": _D(higher, phrases.duration),
        "on_harm.quality": _D(lambda _, after: after != "stop"),
        "on_harm.safety": _D(lambda _, after: after != "stop"),
    },
    "team": {
        "members": _D(more_or_none),
        "owns": _D(never),
        "uses.*": _D(wider),
        **{f"defaults.{path}": direction for path, direction in _HARNESS.items()},
    },
    "fleet/defaults": _HARNESS,
    "fleet/signers": {"": _D(more)},
    "limits": {
        "max_steps": _D(higher, phrases.number),
        "max_tokens": _D(higher, phrases.number),
        "max_cost": _D(higher, phrases.money),
        "max_wall_ms": _D(higher, phrases.duration),
        "max_output_tokens": _D(higher, phrases.number),
    },
    "sandbox": {
        "image": _D(always),
        "cpus_milli": _D(higher, phrases.thousandths),
        "memory_bytes": _D(higher, phrases.size),
        "pids": _D(higher, phrases.number),
        "disk_bytes": _D(higher, phrases.size),
        "exec_timeout_ms": _D(higher, phrases.duration),
    },
    "workspace": {"git": _D(always), "ref": _D(always), "protect": _D(less_covered)},
    "until": {"command": _D(unless_first), "checker": _D(unless_first)},
    "parameters": {"*": _D(never)},
}
"""Kind of unit, or leaf of a release → field by dotted path → direction. `*` is any name; `""` is
the whole value. `owns` of a team is decided by `owners/rules`, which holds every rule in order."""

LABELS = {
    "gate.delta_permille": "gate.delta",
    "gate.first_release.min_pass_rate_permille": "gate.first_release.min_pass_rate",
    "gate.cost_ratio_permille": "gate.cost_ratio",
    "gate.latency_ratio_permille": "gate.latency_ratio",
    "canary.max_age_ms": "canary.max_age",
    "max_tokens": "max_tokens_per_run",
    "max_cost": "max_cost_per_run",
    "max_wall_ms": "max_wall_time",
    "cpus_milli": "cpus",
    "memory_bytes": "memory",
    "disk_bytes": "disk",
    "exec_timeout_ms": "exec_timeout",
    "window_ms": "window",
    "ttl_ms": "ttl",
    "first_token_ms": "first_token",
    "retry.backoff_ms": "retry.backoff",
    "retry.max_backoff_ms": "retry.max_backoff",
    "max_result_bytes": "max_result",
    "tape": "cassette",
}
"""Fields whose name in a file is another one."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs, said in a sentence."""

    path: str
    text: str
    looser: bool


def compare(kind: str, before: Json, after: Json) -> tuple[Difference, ...]:
    """Every field of a value that differs, by path. `kind` is a key of `TABLE`."""
    found: list[Difference] = []
    _compare(TABLE.get(kind, {}), "", before, after, found)
    return tuple(sorted(found, key=lambda one: one.path))


def _compare(
    table: Mapping[str, Direction], path: str, before: Json, after: Json, found: list[Difference]
) -> None:
    if before == after and _same(before, after):
        return
    direction = _direction(table, path)
    if (direction is None or direction.group) and isinstance(before, dict | None) and (
        isinstance(after, dict | None)
    ):  # fmt: skip
        if direction is not None and (before is None or after is None):
            looser = after is None
            found.append(Difference(path, f"{path}: {'none' if looser else 'added'}", looser))
            return
        # What no row names is gone through field by field: some of its fields may be named.
        if before is not None or after is not None:
            old, new = record(before), record(after)
            if old or new:
                for key in sorted({*old, *new}):
                    below = f"{path}.{key}" if path else key
                    _compare(table, below, old.get(key), new.get(key), found)
                return
    rule, say = (direction.rule, direction.say) if direction else (always, phrases.plain)
    found.append(Difference(path, _sentence(path, before, after, say), rule(before, after)))


def _direction(table: Mapping[str, Direction], path: str) -> Direction | None:
    known = table.get(path)
    if known is None and path:
        parts = path.split(".")
        for length in range(len(parts) - 1, -1, -1):
            known = known or table.get(".".join([*parts[:length], "*"]))
    return known


def _same(before: Json, after: Json) -> bool:
    """`1 == True` in Python; in JSON they differ."""
    if not isinstance(before, dict | list):
        return isinstance(before, bool) is isinstance(after, bool)
    return canonical_json(before) == canonical_json(after)


def _sentence(path: str, before: Json, after: Json, say: Callable[[Json], str]) -> str:
    label = f"{label_of(path)} " if path else ""
    # A list that is not given is not an empty one: where it stands for "everything" that shows.
    if say is phrases.plain and _is_texts(before) and _is_texts(after):
        plus = [item for item in texts(after) if item not in texts(before)]
        minus = [item for item in texts(before) if item not in texts(after)]
        parts = [f"+ {ticks(plus)}"] if plus else []
        parts += [f"− {ticks(minus)}"] if minus else []
        return f"{label}{', '.join(parts) or 'in another order'}"
    return f"{label}{say(before)} → {say(after)}"


def _is_texts(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str | int) for item in value)


def label_of(path: str) -> str:
    """The field's name as it stands in a file; names that a person chose are marked."""
    head, _, rest = path.partition(".")
    if head in ("approvals", "uses") and rest:
        return f"{head}.{tick(rest)}" if head == "approvals" else path
    return LABELS.get(path, path)
