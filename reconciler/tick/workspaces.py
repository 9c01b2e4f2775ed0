"""Files a run starts from, laid out on the host before the run is enqueued.

A directory is named by the git tree it holds and never changes afterwards, so all runs that start
from the same files share one, and a second preparation is a look-up.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from reconciler.source.mirror import Mirror
from reconciler.source.tree import Kind, Tree
from reconciler.tick.context import Context
from runner.spec import Workspace

MAX_BYTES = 256 * 1024 * 1024


def from_tree(state: Path, tree: Tree, path: str, *, origin: str) -> Workspace:
    """The directory `path` of a tree as a workspace. Links and submodules are left out.

    Raises ValueError when it is larger than 256 MiB, MissingPath when it is not there.
    """
    oid = tree.oid(path)
    target = state / "workspaces" / str(oid)
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".laying-"))
        try:
            _lay(tree, path, scratch)
            scratch.chmod(0o755)
            scratch.rename(target)
        except FileExistsError:
            shutil.rmtree(scratch, ignore_errors=True)  # another process laid the same files
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)
            if not target.is_dir():
                raise
    return Workspace(path=str(target), origin=f"{origin} tree {oid}")


def from_git(context: Context, url: str, ref: str) -> Workspace:
    """The files of another repository at `ref`, fetched now.

    Raises RemoteUnavailable when it cannot be reached, LookupError when there is no such ref.
    """
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    mirror: Mirror = context.mirror(url, context.state / "mirrors" / f"{name}.git")
    mirror.fetch()
    commit = mirror.resolve(ref)
    if commit is None:
        raise LookupError(f"{url} has no ref {ref!r}: correct agent.sandbox.workspace.ref")
    return from_tree(context.state, mirror.tree(commit), "", origin=f"git {url} commit {commit}")


def _lay(tree: Tree, prefix: str, scratch: Path) -> None:
    total = 0
    for path, entry in tree.walk(prefix):
        if entry.kind is not Kind.BLOB:
            continue
        content = tree.read(path, limit=MAX_BYTES)
        total += len(content)
        if total > MAX_BYTES:
            raise ValueError(f"{prefix or 'the repository'} holds more than {MAX_BYTES} bytes")
        inside = path[len(prefix) :].lstrip("/") if prefix else path
        target = scratch / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o755 if entry.mode & 0o111 else 0o644)
