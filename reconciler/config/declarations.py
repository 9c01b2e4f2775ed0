"""What files say of their own version: the question that is asked of every commit, once.

Only content that the loader would accept declares anything. A file that could not be read as what
it is (a typing error in its front matter, a link out of the repository) has never been usable
under its number, and must not take the number away from the file that puts it right.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from reconciler.config.reader import MAX_TEXT, Memo, Notes, Reader
from reconciler.config.skills import FOLDER, read_skill, skill_header, version_of
from reconciler.config.versions import Declaration, Key, VersionKind
from reconciler.findings import Place
from reconciler.source.excerpt import Excerpt
from reconciler.source.tree import Kind, LinkedTree, MissingPath, SourceTooLarge, UnsafePath

SUFFIX = ".md"


def concerns(path: str) -> bool:
    """Whether a change of this file can bring a version."""
    return path.endswith(SUFFIX) or path.startswith(f"{FOLDER}/")


def declarations(
    tree: LinkedTree, changed: Iterable[str], *, known: Container[Key] = ()
) -> tuple[Declaration, ...]:
    """The versions that the changed files of a tree declare, but those already `known`.

    Costs what was changed: a Markdown file without `version` in it is read and not parsed, a
    skill's files are read only when its number is new. Never raises for what is in the tree.
    """
    paths = sorted(path for path in set(changed) if concerns(path))
    found = [d for path in paths if path.endswith(SUFFIX) for d in _of_text(tree, path, known)]
    for name in sorted(set(_skills(paths))):
        found += _of_skill(tree, name, known)
    return tuple(found)


def _skills(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        top, _, rest = path.partition("/")
        name, slash, _ = rest.partition("/")
        if top == FOLDER and slash:
            yield name


def _of_text(tree: LinkedTree, path: str, known: Container[Key]) -> Iterator[Declaration]:
    excerpt = _excerpt(tree, path, Kind.BLOB)
    if excerpt is None or not _may_declare(excerpt, path):
        return
    text = Reader(excerpt, Memo(size=4)).text(path, Notes(), asked=Place(path))
    if text is not None and text.version is not None and (path, text.version) not in known:
        yield Declaration(path, text.version, excerpt.entry.oid, VersionKind.TEXT)


def _of_skill(tree: LinkedTree, name: str, known: Container[Key]) -> Iterator[Declaration]:
    folder = f"{FOLDER}/{name}"
    excerpt = _excerpt(tree, folder, Kind.TREE)
    if excerpt is None or not _may_declare(excerpt, f"{folder}/SKILL.md"):
        return
    reader = Reader(excerpt, Memo(size=4))
    header = skill_header(reader, name, Notes())
    number = version_of(header[1]) if header is not None else None
    if number is None or (folder, number) in known:
        return
    if read_skill(reader, name, Notes()) is not None:
        yield Declaration(folder, number, excerpt.entry.oid, VersionKind.SKILL)


def _excerpt(tree: LinkedTree, path: str, kind: Kind) -> Excerpt | None:
    try:
        excerpt = Excerpt.of(tree, path)
    except (MissingPath, UnsafePath):
        return None
    return excerpt if excerpt.entry.kind is kind else None


def _may_declare(excerpt: Excerpt, path: str) -> bool:
    try:
        raw = excerpt.read(path, limit=MAX_TEXT)
    except (MissingPath, UnsafePath, SourceTooLarge):
        return False
    return raw.startswith((b"---", b"\xef\xbb\xbf---")) and b"version" in raw
