"""Writing interlock.lock and small edits of YAML that keep a person's comments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap


def write_images(directory: Path, images: Mapping[str, str]) -> Path:
    """Set `lock.images` in DIRECTORY/interlock.lock; other entries and comments stay."""
    path = directory / "interlock.lock"
    for name, digest in images.items():
        edit(path, ("lock", "images", name), digest)
    return path


def edit(path: Path, keys: Sequence[str], value: object) -> None:
    """Set one value in a YAML file, creating what is on the way; comments and order stay."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    document = yaml.load(path.read_text()) if path.exists() else None
    if document is None:
        document = CommentedMap()
    place = document
    for key in keys[:-1]:
        if place.get(key) is None:
            place[key] = CommentedMap()
        place = place[key]
    place[keys[-1]] = value
    with path.open("w") as file:
        yaml.dump(document, file)
