"""Writing interlock.lock and small edits of YAML that keep a person's comments."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

LOCK = "interlock.lock"


def write_images(directory: Path, images: Mapping[str, str]) -> Path:
    """Set `lock.images` in DIRECTORY/interlock.lock; other entries and comments stay."""
    return _write(directory / LOCK, ("lock", "images"), images)


def write_tools(directory: Path, tools: Mapping[str, str], *, drop: Collection[str] = ()) -> Path:
    """Set entries of `lock.tools` in DIRECTORY/interlock.lock and take those of `drop` out; other
    entries and comments stay."""
    return _write(directory / LOCK, ("lock", "tools"), tools, drop=drop)


def locked(directory: Path) -> tuple[str, ...]:
    """The tools that DIRECTORY/interlock.lock has a fingerprint of."""
    path = directory / LOCK
    document = _yaml().load(path.read_text()) if path.exists() else None
    return tuple(((document or {}).get("lock") or {}).get("tools") or {})


def edit(path: Path, keys: Sequence[str], value: object) -> None:
    """Set one value in a YAML file, creating what is on the way; comments and order stay."""
    _write(path, keys[:-1], {keys[-1]: value})


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml


def _write(
    path: Path, keys: Sequence[str], values: Mapping[str, Any], *, drop: Collection[str] = ()
) -> Path:
    yaml = _yaml()
    document = yaml.load(path.read_text()) if path.exists() else None
    if document is None:
        document = CommentedMap()
    place = document
    for key in keys:
        if place.get(key) is None:
            place[key] = CommentedMap()
        place = place[key]
    for key, value in values.items():
        place[key] = value
    for key in drop:
        place.pop(key, None)
    with path.open("w") as file:
        yaml.dump(document, file)
    return path
