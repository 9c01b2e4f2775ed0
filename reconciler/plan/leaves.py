"""The leaves of a release in words: why a digest is another one.

Instructions and the files of skills are texts, to be compared word by word. The rest are settings,
said field by field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.values import Json
from reconciler.plan.changes import LeafChange
from reconciler.plan.directions import compare
from reconciler.plan.phrases import plural, record, texts, tick, ticks
from reconciler.release import Release, changed_leaves

SETTINGS = frozenset({"limits", "sandbox", "workspace", "until"})
"""Leaves with a table of directions of their own."""
_NAMED = SETTINGS | {"safety", "model", "parameters", "instructions", "builtin", "role"}
_FOLDERS = frozenset({"skills", "tools"})
_ORIGINS = {
    "max_steps": "harness.max_steps",
    "max_tokens": "harness.max_tokens_per_run",
    "max_cost": "harness.max_cost_per_run",
    "max_wall_ms": "harness.max_wall_time",
    "max_output_tokens": "harness.max_output_tokens",
    "image": "sandbox.image",
    "cpus_milli": "sandbox.cpus",
    "memory_bytes": "sandbox.memory",
    "pids": "sandbox.pids",
    "disk_bytes": "sandbox.disk",
    "exec_timeout_ms": "sandbox.exec_timeout",
}


def origin_path(leaf: str, field: str) -> str:
    """Under which path of `origins` a field of a leaf is noted."""
    return _ORIGINS.get(field, "harness.until" if leaf == "until" else f"sandbox.{leaf}")


def known(path: str) -> bool:
    """Whether this version knows what the leaf means."""
    parts = path.split("/")
    if parts[0] == "subagents":
        parts = parts[2:]
    elif parts[0] == "main":
        parts = parts[1:]
    if len(parts) == 1:
        return parts[0] in _NAMED
    return len(parts) > 1 and parts[0] in _FOLDERS


def changed_between(before: Release | None, after: Release) -> dict[str, tuple[Json, Json]]:
    """`reconciler.release.changed_leaves`, without hashing the many leaves that are equal.

    A change of the whole fleet's defaults compares every agent, and most leaves of each are the
    same. Where Python sees no difference and the digests do (`1` and `true`), hashes decide.
    """
    if before is None:
        return changed_leaves(before, after)
    old, new = before.leaves, after.leaves
    found = {
        path: (old.get(path), new.get(path))
        for path in sorted({*old, *new})
        if path not in old or path not in new or old[path] != new[path]
    }
    return found if found or before.digest == after.digest else changed_leaves(before, after)


def told(changed: Mapping[str, tuple[Json, Json]], *, new: bool) -> tuple[LeafChange, ...]:
    """Every changed leaf. Of a new agent only the texts: its settings are said as capabilities."""
    found: list[LeafChange] = []
    for path, (before, after) in changed.items():
        parts = path.split("/")
        if path != "limits" and parts[-1] == "limits" and (before, after) == changed.get("limits"):
            continue  # a sub-agent without limits of its own: told once, of the run
        role = parts[1] if parts[0] == "subagents" else ""
        of = f" of {tick(role)}" if role else ""
        if parts[-1] == "instructions":
            text = f"instructions{of}"
            found.append(LeafChange(path, text, _text(before), _text(after)))
        elif parts[-2:-1] == ["skills"]:
            found += _skill(path, parts[-1], of, before, after)
        elif not new:
            found.append(LeafChange(path, _setting(path, parts, of, before, after)))
    return tuple(found)


def _skill(path: str, name: str, of: str, before: Json, after: Json) -> Iterator[LeafChange]:
    old, new = record(before), record(after)
    if after is None:
        yield LeafChange(path, f"skill {tick(name)}{of} removed")
        return
    if before is None:
        count = plural(len(record(new.get("files"))), "file")
        yield LeafChange(path, f"skill {tick(name)}{of} added ({count})")
    if old.get("description") != new.get("description"):
        yield LeafChange(
            f"{path}/description",
            f"skill {tick(name)}{of}: description",
            _text(old.get("description")),
            _text(new.get("description")),
        )
    then, now = record(old.get("files")), record(new.get("files"))
    for file in sorted({*then, *now}):
        if then.get(file) != now.get(file):
            yield LeafChange(
                f"{path}/{file}",
                f"skill {tick(name)}{of}: {tick(file)}",
                _text(then.get(file)),
                _text(now.get(file)),
            )


def _setting(path: str, parts: list[str], of: str, before: Json, after: Json) -> str:
    last = parts[-1]
    if parts[-2:-1] == ["tools"]:
        return _tool(last, of, before, after)
    if last == "model":
        if _model(before) == _model(after):  # another id or provider says so by itself
            return f"model{of} {_model(after)}: {_behind(before, after)}"
        return f"model{of} {_model(before)} → {_model(after)}"
    if last == "builtin":
        plus = [tool for tool in texts(after) if tool not in texts(before)]
        minus = [tool for tool in texts(before) if tool not in texts(after)]
        parts = [f"+ {ticks(plus)}"] if plus else []
        parts += [f"− {ticks(minus)}"] if minus else []
        return f"built-in tools{of} {', '.join(parts)}"
    if last == "role":
        return f"role{of} {tick(before) if before else 'none'} → {tick(after) if after else 'none'}"
    if last == "safety":
        counts = [len(value) if isinstance(value, list) else 0 for value in (before, after)]
        return f"safety checks {counts[0]} → {counts[1]}"
    if last in (*SETTINGS, "parameters"):
        if before is None or after is None:
            return f"{last}{of} {'removed' if after is None else 'added'}"
        changes = "; ".join(one.text for one in compare(last, before, after))
        return f"{last}{of}: {changes}"
    return f"{tick(path)} differs"


def _tool(name: str, of: str, before: Json, after: Json) -> str:
    if before is None or after is None:
        return f"tool {tick(name)}{of} {'removed' if after is None else 'added'}"
    keys = sorted(key for key in {*record(before), *record(after)}
                  if record(before).get(key) != record(after).get(key))  # fmt: skip
    words = {"args": "arguments", "schema": "schema of its arguments"}
    return f"tool {tick(name)}{of}: {', '.join(words.get(key, key) for key in keys)}"


def _model(value: Json) -> str:
    model = record(value)
    if not model:
        return "none"
    listed = model.get("targets")
    found = [record(target) for target in listed] if isinstance(listed, list) else []
    names = [str(target.get("name")) for target in found]
    alone = names == [model.get("name")] or not names
    return f"{tick(model.get('name'))}{'' if alone else f' ({ticks(names)})'}"


def _behind(before: Json, after: Json) -> str:
    """What differs of models that keep their names: parameters, or what serves them."""
    old, new = _targets(before), _targets(after)
    parts: list[str] = []
    for name in sorted(new.keys() & old.keys()):
        told = compare("parameters", old[name].get("parameters"), new[name].get("parameters"))
        parts += [f"{tick(name)} {one.text}" for one in told]
        if any(old[name].get(key) != new[name].get(key) for key in ("provider", "id")):
            parts.append(f"{tick(name)} is another model")
    return "; ".join(parts) or "other targets"


def _targets(value: Json) -> dict[str, dict[str, Json]]:
    listed = record(value).get("targets")
    found = [record(target) for target in listed] if isinstance(listed, list) else []
    return {str(target.get("name")): target for target in found}


def _text(value: Json) -> str | None:
    return None if value is None else str(value)
