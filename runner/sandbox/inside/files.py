"""Files of the workspace, read and written beside code that may be hostile.

No link is followed, in no part of a path, and nothing but a regular file is opened to be read:
process 1 must neither be led out of the workspace nor be made to wait on a pipe.
"""
# ruff: noqa: SIM105, UP031
# (pathlib and contextlib cost more than the rest of the start; old Pythons are served.)

from __future__ import annotations

import json
import os
import stat

TYPE_CHECKING = False  # importing typing would cost 5 ms at every start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

WORKSPACE = "/workspace"
CHUNK = 1 << 16


class Refused(Exception):
    """Said to the other side as it is."""


def parts_of(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise Refused("not a path inside the workspace: " + path)
    return parts


def open_folder(parts: list[str], create: bool = False) -> int:
    """Open a folder of the workspace, following no link on the way; returns a descriptor."""
    here = os.open(WORKSPACE, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts:
            if create:
                try:
                    os.mkdir(part, 0o755, dir_fd=here)
                except FileExistsError:
                    pass
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
    except OSError:
        os.close(here)
        raise
    return here


def read_file(path: str, limit: int) -> bytes:
    parts = parts_of(path)
    if not parts:
        raise Refused("not a file: " + path)
    folder = open_folder(parts[:-1])
    try:
        # NONBLOCK: opening a named pipe would otherwise wait for ever.
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise Refused("not a regular file: " + path)
        data = read_all(file, limit + 1)
    finally:
        os.close(file)
    if len(data) > limit:
        raise Refused("%s: more than %d bytes" % (path, limit))
    return data


def read_all(file: int, limit: int) -> bytes:
    data = bytearray()
    while len(data) < limit:
        chunk = os.read(file, min(CHUNK, limit - len(data)))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def write_file(path: str, data: bytes, mode: int = 0o644) -> None:
    parts = parts_of(path)
    if not parts:
        raise Refused("not a file: " + path)
    folder = open_folder(parts[:-1], create=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.open(parts[-1], flags, mode, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise Refused("not a regular file: " + path)
        os.ftruncate(file, 0)
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
    finally:
        os.close(file)


def walk(prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (path, entry) below a folder, sorted, following no link and crossing no depth bound."""
    folders = ["/".join(parts_of(prefix))]
    while folders:
        folder = folders.pop()
        try:
            handle = open_folder(parts_of(folder))
        except OSError:
            continue
        try:
            with os.scandir(handle) as found:
                entries = sorted(found, key=lambda entry: entry.name)
            below = []
            for entry in entries:
                path = folder + "/" + entry.name if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    below.append(path)
                else:
                    yield path, entry
            folders += reversed(below)
        finally:
            os.close(handle)


def list_files(prefix: str, limit: int) -> tuple[list[Any], bool]:
    rows: list[Any] = []
    for path, entry in walk(prefix):
        if len(rows) == limit:
            return rows, True
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        rows.append([safe(path), status.st_size if stat.S_ISREG(status.st_mode) else -1])
    return rows, False


def safe(path: str) -> str:
    return path.encode("utf-8", "replace").decode()


def collect(limits: dict[str, int]) -> tuple[list[Any], bytes]:
    """All regular files as an archive (runner/workspace.py has the format)."""
    rows: list[Any] = []
    skipped: list[Any] = []
    blobs: list[bytes] = []
    total = 0
    for path, entry in walk(""):
        why, data, executable = None, b"", 0
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                why = "link"
            elif not stat.S_ISREG(status.st_mode):
                why = "special"
            elif safe(path) != path:
                why = "name"
            elif status.st_size > limits["file"]:
                why = "too large"
            else:
                data = read_file(path, limits["file"])
                executable = int(bool(status.st_mode & 0o100))
        except (OSError, Refused) as error:
            why = str(error)
        if why is not None:
            if len(skipped) < 100:
                skipped.append([safe(path)[:300], why[:200]])
            continue
        total += len(data)
        if total > limits["total"]:
            raise Refused("the workspace holds more than %d bytes" % limits["total"])
        if len(rows) >= limits["files"]:
            raise Refused("the workspace holds more than %d files" % limits["files"])
        rows.append([path, executable, len(data)])
        blobs.append(data)
    manifest = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    return skipped, b"".join([b"%08x" % len(manifest), manifest, *blobs])


def fill(archive: bytes) -> None:
    length = int(archive[:8], 16)
    at = 8 + length
    for path, executable, size in json.loads(archive[8:at]):
        write_file(path, archive[at : at + size], 0o755 if executable else 0o644)
        at += size
