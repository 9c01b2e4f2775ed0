"""New files into a work directory: all of them or none, and never over what is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path


def taken(root: Path, paths: Iterable[str]) -> tuple[str, ...]:
    """Those of `paths` that exist below `root`, or that a symbolic link leads out of it."""
    base = root.resolve()
    return tuple(path for path in sorted(paths) if _taken(root / path, base))


def write_new(
    root: Path, files: Mapping[str, bytes], *, executable: frozenset[str] = frozenset()
) -> None:
    """Create `files` (path → content) below `root`; folders are made on the way.

    To be asked `taken` before. OSError when writing fails, as when a file has come into being
    meanwhile; what was written until then is removed again.
    """
    written: list[Path] = []
    made: list[Path] = []
    try:
        for path, content in sorted(files.items()):
            target = root / path
            made += _made(target.parent)
            with target.open("xb") as file:
                written.append(target)
                file.write(content)
            if path in executable:
                target.chmod(target.stat().st_mode | 0o111)
    except OSError:
        for target in written:
            target.unlink(missing_ok=True)
        for folder in reversed(made):
            folder.rmdir()
        raise


def _taken(target: Path, base: Path) -> bool:
    outside = not target.resolve().is_relative_to(base)
    blocked = any(parent.exists() and not parent.is_dir() for parent in target.parents)
    return outside or blocked or target.is_symlink() or target.exists()


def _made(folder: Path) -> list[Path]:
    """Make a folder and those above it; which of them are new, outermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]
