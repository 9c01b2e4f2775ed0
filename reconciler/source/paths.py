"""Which paths are fit to be read, listed or written.

A config repo is input from people we may not trust, and its paths end up in file systems, shells,
terminals and links of reports. One set of rules, used by every reader and by the writer.
"""

from __future__ import annotations

import re


class MissingPath(KeyError):
    """Nothing is at `path` (or it is of another kind than asked for: `detail` says)."""

    def __init__(self, path: str, detail: str = "no such file in the tree") -> None:
        super().__init__(path)
        self.path = path
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.path or '(root)'}: {self.detail}"


class UnsafePath(ValueError):
    """A path that could mean something outside the tree. Never followed, never listed."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path!r}: {reason}")
        self.path = path
        self.reason = reason


class SourceTooLarge(ValueError):
    """A file is larger than the reader is prepared to take into memory."""

    def __init__(self, path: str, size: int, limit: int) -> None:
        super().__init__(
            f"{path}: {size:,} bytes, and at most {limit:,} are read; "
            "keep large files out of the config repo or refer to them by digest"
        )
        self.path = path


_PLAIN = re.compile("[A-Za-z0-9_-][A-Za-z0-9_.-]*")
"""Nearly all names: they need no closer look."""
# C0 and C1 controls, line separators, and what reorders the text on a screen: a name in a list
# must be one line, and must be read as it is written.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def check_name(name: str, path: str) -> None:
    """Refuse a path segment that could be misread by a file system, a shell or a terminal."""
    if _PLAIN.fullmatch(name):
        return
    if name in ("", ".", ".."):
        raise UnsafePath(path, "empty, '.' and '..' segments are not allowed")
    if name.lower() == ".git":
        raise UnsafePath(path, "a '.git' segment is not allowed")
    if _UNSEEN.search(name):
        raise UnsafePath(path, "control characters are not allowed")
    if "/" in name or "\\" in name:
        raise UnsafePath(path, "slashes inside a name are not allowed")
    if any("\ud800" <= c <= "\udfff" for c in name):
        raise UnsafePath(path, "the name is not valid UTF-8")


def split_path(path: str) -> tuple[str, ...]:
    """The segments of a checked path; `()` for the root. UnsafePath."""
    if path == "":
        return ()
    if path.startswith("/"):
        raise UnsafePath(path, "an absolute path is not allowed")
    segments = tuple(path.split("/"))
    for segment in segments:
        check_name(segment, path)
    return segments


def join_path(directory: str, reference: str) -> str:
    """Resolve a reference as people write it (`./x.md`, `../shared/x.md`) from a directory.

    Only the text is looked at. UnsafePath when it climbs out of the tree or is absolute.
    """
    if reference.startswith("/"):
        raise UnsafePath(reference, "an absolute path is not allowed")
    segments = list(split_path(directory))
    for part in reference.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not segments:
                raise UnsafePath(reference, "leads out of the repository")
            segments.pop()
        else:
            check_name(part, reference)
            segments.append(part)
    return "/".join(segments)
