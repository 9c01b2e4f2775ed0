"""The files a run works on, as values: read on the host, packed, unpacked, compared, restored.

A workspace crosses the boundary of the sandbox twice, and the second time it comes from code
that nobody trusts. So it never becomes a directory on the host: it stays a mapping of relative
path to content in memory, where a link, a device or a `..` has no meaning at all. The wire form
is interlock.archive/1, made for this: a JSON manifest and the contents one after the other.
(Tar was the other choice. It can say far more than we want to hear: links, devices, sparse
files of a terabyte, absolute paths; each a check that could be forgotten.)
"""

from __future__ import annotations

import difflib
import json
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


class WorkspaceError(Exception):
    """A workspace that cannot be taken as it is; the text says which path and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One regular file: its bytes and whether it may be executed. Other modes do not travel."""

    data: bytes
    executable: bool = False


Files = Mapping[str, Entry]
"""Relative POSIX path → file. Directories exist by having files; empty ones do not travel."""


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """How much of a workspace may cross the boundary, in either direction (bytes, files)."""

    total_bytes: int = 64 * 1024 * 1024
    file_bytes: int = 16 * 1024 * 1024
    files: int = 20_000


LIMITS = SizeLimits()
_PATH_BYTES = 4096
_MANIFEST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a sandbox held when it was asked: regular files, and the paths that were left behind
    with the reason (`link`, `special`, `too large`, `name`), sorted by path."""

    files: Files
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class WorkspaceChange:
    """What a run did to its workspace: changed paths, sorted, and the text of the change."""

    changed: tuple[str, ...]
    diff: str
    truncated: bool = False


def check_path(path: str) -> str:
    """The path itself when it is relative, plain and inside; raises WorkspaceError otherwise."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise WorkspaceError(f"path {path!r} is not UTF-8; rename the file") from None
    parts = path.split("/")
    if (
        not path
        or len(encoded) > _PATH_BYTES
        or any(part in ("", ".", "..") for part in parts)
        or any(len(part.encode()) > 255 for part in parts)
        or any(ord(character) < 32 or ord(character) == 127 for character in path)
    ):
        raise WorkspaceError(
            f"path {path[:200]!r} is not a plain relative path inside the workspace"
        )
    return path


def read_tree(directory: Path, *, limits: SizeLimits = LIMITS) -> Files:
    """Read a host directory, in sorted order. Raises WorkspaceError.

    A link to a regular file inside the tree is read as that file; any other link, and every
    device, socket or pipe, is refused: what a fixture points at must not depend on the machine.
    `.git` folders are left out: a run sees files, never a repository's history or its hooks.
    """
    if not directory.is_dir():
        raise WorkspaceError(f"workspace {directory} is not a directory")
    root = directory.resolve()
    files: dict[str, Entry] = {}
    total = 0
    for path in _walk(root):
        name = check_path(path.relative_to(root).as_posix())
        target = path
        if path.is_symlink():
            try:
                target = path.resolve(strict=True)
            except (OSError, RuntimeError):
                raise WorkspaceError(f"{name}: a link to nothing; remove it") from None
            if not target.is_relative_to(root) or not target.is_file():
                raise WorkspaceError(
                    f"{name}: a link may only point at a regular file of the same workspace"
                )
        status = target.stat()
        if not stat.S_ISREG(status.st_mode):
            raise WorkspaceError(f"{name}: neither a file nor a directory; remove it")
        total += status.st_size
        if status.st_size > limits.file_bytes:
            raise WorkspaceError(f"{name}: {status.st_size} bytes, limit {limits.file_bytes}")
        if total > limits.total_bytes:
            raise WorkspaceError(f"{directory}: more than {limits.total_bytes} bytes in all")
        if len(files) >= limits.files:
            raise WorkspaceError(f"{directory}: more than {limits.files} files")
        files[name] = Entry(target.read_bytes(), bool(status.st_mode & 0o100))
    return files


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.name == ".git":
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def pack(files: Files) -> bytes:
    """The files as one interlock.archive/1: same files, same bytes.

    `<length of manifest, 8 digits hex>` + manifest (JSON list of [path, executable, size],
    sorted by path) + contents in that order.
    """
    ordered = sorted(files.items())
    manifest = json.dumps(
        [[check_path(path), int(entry.executable), len(entry.data)] for path, entry in ordered],
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
    return b"".join([b"%08x" % len(manifest), manifest, *(entry.data for _, entry in ordered)])


def unpack(archive: bytes, *, limits: SizeLimits = LIMITS) -> Files:
    """Read an interlock.archive/1 that hostile code may have written. Raises WorkspaceError.

    Nothing is believed: paths are plain and unique, no file lies under another file, sizes add
    up to exactly the bytes that are there.
    """
    try:
        length = int(archive[:8], 16) if len(archive) >= 8 else -1
    except ValueError:
        length = -1
    if not 0 <= length <= _MANIFEST_BYTES or len(archive) < 8 + length:
        raise WorkspaceError("archive: no manifest where one was promised")
    try:
        manifest = json.loads(archive[8 : 8 + length])
    except (ValueError, RecursionError):
        raise WorkspaceError("archive: the manifest is not JSON") from None
    if not isinstance(manifest, list):
        raise WorkspaceError("archive: the manifest is not a list")
    if len(manifest) > limits.files:
        raise WorkspaceError(f"archive: {len(manifest)} files, limit {limits.files}")
    if len(archive) - 8 - length > limits.total_bytes:
        raise WorkspaceError(f"archive: more than {limits.total_bytes} bytes in all")
    files: dict[str, Entry] = {}
    at = 8 + length
    for row in manifest:
        path, executable, size = _row(row)
        if size > limits.file_bytes:
            raise WorkspaceError(f"{path}: {size} bytes, limit {limits.file_bytes}")
        if path in files:
            raise WorkspaceError(f"{path}: twice in one archive")
        if at + size > len(archive):
            raise WorkspaceError(f"{path}: {size} bytes promised, fewer there")
        files[path] = Entry(archive[at : at + size], executable)
        at += size
    if at != len(archive):
        raise WorkspaceError("archive: bytes that no file claims")
    for path in files:
        for parent in parents(path):
            if parent in files:
                raise WorkspaceError(f"{path}: lies under {parent}, which is a file")
    return files


def _row(row: object) -> tuple[str, bool, int]:
    if isinstance(row, list) and len(row) == 3:
        path, executable, size = row
        if isinstance(path, str) and executable in (0, 1) and type(size) is int and size >= 0:
            return check_path(path), bool(executable), size
    raise WorkspaceError("archive: an entry is not [path, executable, size]")


def parents(path: str) -> Iterator[str]:
    """The directories above a path, nearest first: `a/b/c` → `a/b`, `a`."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    if glob.endswith("/"):
        glob += "**"
    parts: list[str] = []
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at) and (at == 0 or glob[at - 1] == "/"):
            parts.append("(?:.*/)?")
            at += 3
        elif glob.startswith("**", at):
            parts.append(".*")
            at += 2
        elif glob[at] == "*":
            parts.append("[^/]*")
            at += 1
        elif glob[at] == "?":
            parts.append("[^/]")
            at += 1
        else:
            parts.append(re.escape(glob[at]))
            at += 1
    return re.compile("".join(parts), re.DOTALL)


def matches(path: str, globs: Iterable[str]) -> bool:
    """Whether any glob matches the whole path. `*` stays within a folder, `**` crosses folders,
    `tests/` means everything below it; there are no character classes, case counts."""
    return any(_pattern(glob.removeprefix("./")).fullmatch(path) for glob in globs)


def restore(result: Files, pristine: Files, protect: Sequence[str]) -> Files:
    """The result with every protected path as it was before: changed ones put back, deleted ones
    back again, added ones gone.

    A file the run put where a protected folder belongs (or the reverse) gives way, so that a
    protected path cannot be hidden by turning its parent into something else.
    """
    kept = {path: entry for path, entry in result.items() if not matches(path, protect)}
    back = {path: entry for path, entry in pristine.items() if matches(path, protect)}
    folders = {parent for path in back for parent in parents(path)}
    for path in list(kept):
        if path in folders or any(parent in back for parent in parents(path)):
            del kept[path]
    return {**kept, **back}


def changed_paths(before: Files, after: Files) -> tuple[str, ...]:
    """Paths added, removed or different in content or executable bit, sorted."""
    return tuple(path for path in sorted({*before, *after}) if before.get(path) != after.get(path))


_CONTEXT = 3
_DIFF_WORK = 250_000
"""Bound of lines × lines given to difflib per workspace: its worst case is cubic, and the texts
are the agent's to choose. What goes beyond is shown as one block replaced by another, which is
still a correct diff."""


def diff(before: Files, after: Files, *, limit_bytes: int = 256 * 1024) -> WorkspaceChange:
    """What changed, as git would print it (unified, three lines of context), cut at the limit.

    Binary files are named, not shown. Cutting never loses a path: `changed` is always complete.
    """
    paths = changed_paths(before, after)
    budget = _DIFF_WORK
    parts: list[str] = []
    size = 0

    def match(old: list[str], new: list[str]) -> list[_Opcode]:
        nonlocal budget
        opcodes, spent = _opcodes(old, new, budget)
        budget -= spent
        return opcodes

    for path in paths:
        text = _file_diff(path, before.get(path), after.get(path), match)
        size += len(text.encode())
        if size > limit_bytes:
            left = len(paths) - len(parts)
            parts.append(f"[diff cut at {limit_bytes} bytes; {left} of {len(paths)} files left]\n")
            return WorkspaceChange(paths, "".join(parts), truncated=True)
        parts.append(text)
    return WorkspaceChange(paths, "".join(parts))


_Opcode = tuple[str, int, int, int, int]


def _file_diff(
    path: str,
    before: Entry | None,
    after: Entry | None,
    match: Callable[[list[str], list[str]], list[_Opcode]],
) -> str:
    lines = [f"diff --git a/{path} b/{path}\n"]
    if before is None and after is not None:
        lines.append(f"new file mode {_mode(after)}\n")
    elif after is None and before is not None:
        lines.append(f"deleted file mode {_mode(before)}\n")
    elif before and after and before.executable != after.executable:
        lines += [f"old mode {_mode(before)}\n", f"new mode {_mode(after)}\n"]
    old, new = _text(before), _text(after)
    if old is None or new is None:
        sizes = [f"{len(entry.data)} bytes" if entry else "nothing" for entry in (before, after)]
        lines.append(f"Binary files differ ({sizes[0]} -> {sizes[1]})\n")
        return "".join(lines)
    if old != new:
        lines.append("--- /dev/null\n" if before is None else f"--- a/{path}\n")
        lines.append("+++ /dev/null\n" if after is None else f"+++ b/{path}\n")
        lines += _hunks(old, new, match(old, new))
    return "".join(lines)


def _mode(entry: Entry) -> str:
    return "100755" if entry.executable else "100644"


def _text(entry: Entry | None) -> list[str] | None:
    """Lines with their ends, [] for no file, None for binary."""
    if entry is None:
        return []
    if b"\0" in entry.data:
        return None
    try:
        text = entry.data.decode()
    except UnicodeDecodeError:
        return None
    # Not splitlines(): that also cuts at characters which are no line ends in a diff.
    return [line for line in re.split(r"(?<=\n)", text) if line]


def _opcodes(old: list[str], new: list[str], budget: int) -> tuple[list[_Opcode], int]:
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    middle_old, middle_new = old[start : len(old) - end], new[start : len(new) - end]
    work = len(middle_old) * len(middle_new)
    opcodes: list[_Opcode] = [("equal", 0, start, 0, start)] if start else []
    if work <= budget:
        matcher = difflib.SequenceMatcher(None, middle_old, middle_new)
        for tag, i1, i2, j1, j2 in matcher.get_opcodes():
            opcodes.append((tag, i1 + start, i2 + start, j1 + start, j2 + start))
    else:
        work = 0
        opcodes.append(("replace", start, len(old) - end, start, len(new) - end))
    if end:
        opcodes.append(("equal", len(old) - end, len(old), len(new) - end, len(new)))
    return opcodes, work


def _hunks(old: list[str], new: list[str], opcodes: list[_Opcode]) -> Iterator[str]:
    matcher: difflib.SequenceMatcher[str] = difflib.SequenceMatcher(None, [], [])
    matcher.opcodes = opcodes  # type: ignore[attr-defined]
    for group in matcher.get_grouped_opcodes(_CONTEXT):
        i1, i2, j1, j2 = group[0][1], group[-1][2], group[0][3], group[-1][4]
        yield f"@@ -{_range(i1, i2)} +{_range(j1, j2)} @@\n"
        for tag, a1, a2, b1, b2 in group:
            if tag == "equal":
                yield from (_line(" ", line) for line in old[a1:a2])
            else:
                yield from (_line("-", line) for line in old[a1:a2])
                yield from (_line("+", line) for line in new[b1:b2])


def _range(start: int, stop: int) -> str:
    """A hunk's range, as in the unified format: `first,count`, an empty one names the line
    before it, and a count of one is left out."""
    count = stop - start
    if count == 1:
        return str(start + 1)
    return f"{start + 1 if count else start},{count}"


def _line(sign: str, line: str) -> str:
    return (
        f"{sign}{line}" if line.endswith("\n") else f"{sign}{line}\n\\ No newline at end of file\n"
    )
