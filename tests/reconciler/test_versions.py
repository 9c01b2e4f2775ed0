"""Versions: which content `@v4` names, and what is said when it cannot be told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.config.declarations import declarations
from reconciler.config.pins import Pin, pinned_skill, pinned_text, split_pin
from reconciler.config.reader import Memo, Notes, Reader
from reconciler.config.versions import NO_HISTORY, Declaration, History, Released, grown
from reconciler.findings import Place
from reconciler.source.excerpt import Excerpt
from reconciler.source.paths import MissingPath, UnsafePath
from reconciler.source.tree import MemoryTree
from tests.support.history import START, MemoryHistory, commit_id, indexed

ASKED = Place("agents/ci/agent.yaml", 4, 17)
PATH = "agents/ci/triage.md"


def text(number: int | None, body: str) -> bytes:
    return (f"---\nversion: {number}\n---\n" if number else "").encode() + body.encode()


def one(number: int | None, body: str) -> MemoryTree:
    return MemoryTree({PATH: text(number, body)})


def skill(number: int | None, body: str, **files: str) -> MemoryTree:
    version = f"metadata: {{version: {number}}}\n" if number else ""
    head = f"---\nname: runbook\ndescription: How to.\n{version}---\n{body}\n"
    beside = {f"skills/runbook/{name}.md": text.encode() for name, text in files.items()}
    return MemoryTree({"skills/runbook/SKILL.md": head.encode(), **beside})


def ask(
    tree: MemoryTree, pin: Pin | None, history: History = NO_HISTORY, *, path: str = PATH
) -> str:
    """The body the reference means, or what is wrong with it."""
    notes = Notes()
    found = pinned_text(Reader(tree, Memo(), history), path, pin, notes, asked=ASKED)
    assert (found is None) == notes.failed
    return found.value.body if found else "\n".join(map(str, notes.findings))


def ask_skill(
    tree: MemoryTree, pin: Pin | None, history: History = NO_HISTORY
) -> dict[str, str] | str:
    notes = Notes()
    found = pinned_skill(Reader(tree, Memo(), history), "runbook", pin, notes, asked=ASKED)
    assert (found is None) == notes.failed
    return dict(found.value.files) if found else "\n".join(map(str, notes.findings))


# --- what a reference says


@pytest.mark.parametrize(
    "reference, expected",
    [
        ("triage.md", ("triage.md", None)),
        ("triage.md@v4", ("triage.md", Pin(number=4))),
        ("ci-runbook@v12", ("ci-runbook", Pin(number=12))),
        (f"x@{'0a' * 20}", ("x", Pin(commit="0a" * 20))),
        ("../@team/triage.md", ("../@team/triage.md", None)),
        ("../@team/triage.md@v1", ("../@team/triage.md", Pin(number=1))),
    ],
)
def test_a_suffix_is_a_version_or_a_whole_commit_id(
    reference: str, expected: tuple[str, Pin | None]
) -> None:
    assert split_pin(reference, ASKED, Notes()) == expected


@pytest.mark.parametrize(
    "suffix, why",
    [
        ("latest", "is not a version"),
        ("", "is not a version"),
        ("v0", "is not a version"),
        ("v04", "is not a version"),
        ("v1234567", "is not a version"),
        ("0a1b2c3", "an abbreviated commit id, which may come to mean another commit one day"),
        ("0A" * 20, "one has 40 lower-case hex digits"),
    ],
)
def test_any_other_suffix_is_refused_with_the_reason(suffix: str, why: str) -> None:
    notes = Notes()
    assert split_pin(f"triage.md@{suffix}", ASKED, notes) is None
    (finding,) = notes.findings
    assert finding.place == ASKED
    assert why in finding.message
    assert finding.fix


# --- what a version names


def test_a_version_names_its_content_after_the_head_has_gone_on() -> None:
    history = MemoryHistory([one(4, "four"), one(5, "five")])
    for head in (one(5, "five"), one(None, "draft"), MemoryTree({}), one(5, "five"), one(6, "six")):
        assert ask(head, Pin(number=4), history) == "four"
    assert ask(one(4, "four"), Pin(number=5), history) == "five"


def test_the_head_does_not_matter_even_when_it_cannot_be_read() -> None:
    history = MemoryHistory([one(4, "four")])
    assert ask(MemoryTree({PATH: b"---\nversion: [\n---\n"}), Pin(number=4), history) == "four"


def test_other_content_under_a_released_number_is_an_error_where_the_number_is_written() -> None:
    history = MemoryHistory([one(3, "three"), one(4, "four")])
    head = one(4, "four, but better")
    expected = (
        f'{PATH}:2:10 v4 of "{PATH}" was released on 2026-03-02 (commit 000000000000), and this '
        "is other content; bump to v5 (version: 5), or restore the content of then"
    )
    assert ask(head, Pin(number=4), history) == expected
    assert ask(head, None, history) == expected, "a version must not come to mean two texts"
    assert ask(head, Pin(number=3), history) == "three", "v3 need not wait for v4"


def test_the_bump_that_is_asked_for_is_to_a_number_that_is_free() -> None:
    history = MemoryHistory([one(4, "four"), one(9, "nine")])
    assert "bump to v10" in ask(one(4, "else"), None, history)


def test_a_restored_text_may_carry_its_old_number() -> None:
    history = MemoryHistory([one(4, "four"), one(5, "five")])
    assert ask(one(4, "four"), None, history) == "four"


def test_who_declares_a_new_number_at_the_head_is_the_first() -> None:
    for history in (MemoryHistory([one(4, "four")]), NO_HISTORY):
        assert ask(one(5, "five"), Pin(number=5), history) == "five"


def test_a_number_that_nobody_declared_is_an_error_that_lists_those_there_are() -> None:
    history = MemoryHistory([one(1, "a"), one(2, "b")])
    said = ask(one(2, "b"), Pin(number=7), history)
    assert said.startswith(f"{ASKED} {PATH} declares version 2, not 7, and the branch has never")
    assert "there are v1, v2; refer to it as @v2" in said
    assert "declares no version" in ask(one(None, "draft"), Pin(number=7), history)
    gone = ask(MemoryTree({}), Pin(number=7), history)
    assert gone == f'{ASKED} there is no file "{PATH}"; there are v1, v2'
    assert "never" not in ask(one(2, "b"), Pin(number=7)), "without a history nobody knows"


def test_a_path_that_leaves_the_tree_is_refused_whatever_the_pin() -> None:
    link = MemoryTree({"x": b""}, links={PATH: "../../../etc/passwd"})
    history = MemoryHistory([link])
    assert "leads out of the repository" in ask(link, None, history)
    for pin in (Pin(number=1), Pin(commit=commit_id(0))):
        assert "there is no file" in ask(link, pin, history)


def test_a_link_has_no_versions_of_its_own() -> None:
    tree = MemoryTree({"shared/x.md": text(1, "shared")}, links={PATH: "../../shared/x.md"})
    history = MemoryHistory([tree])
    assert ask(tree, None, history) == "shared"
    assert ask(tree, Pin(number=1), history, path="shared/x.md") == "shared"
    assert "through a symbolic link" in ask(tree, Pin(number=1), history)


def test_only_markdown_has_versions() -> None:
    tree = MemoryTree({"agents/ci/x.txt": text(1, "one")})
    path = "agents/ci/x.txt"
    assert ask(tree, None, path=path) == "one"
    assert "only Markdown files have" in ask(tree, Pin(number=1), path=path)


def test_content_that_the_repository_lost_is_an_error_unless_the_head_still_has_it() -> None:
    whole = MemoryHistory([one(4, "four")])
    lost = MemoryHistory([one(4, "four")], lost=[whole.index[PATH, 4].oid])
    assert ask(one(4, "four"), Pin(number=4), lost) == "four"
    said = ask(one(5, "five"), Pin(number=4), lost)
    assert "no longer has its content; push commit 0000" in said


# --- commits


def test_a_commit_names_the_content_of_then() -> None:
    history = MemoryHistory([one(None, "first"), one(None, "second")])
    assert ask(one(None, "now"), Pin(commit=commit_id(0)), history) == "first"
    assert ask(MemoryTree({}), Pin(commit=commit_id(1)), history) == "second"


def test_a_commit_the_branch_never_stood_at_is_refused() -> None:
    history = MemoryHistory([one(None, "first")])
    assert "the watched branch has never stood at commit 0000" in ask(
        one(None, "now"), Pin(commit=commit_id(7)), history
    )


def test_a_commit_needs_a_history() -> None:
    assert "cannot be looked up: this is not a git repository" in ask(
        one(None, "now"), Pin(commit=commit_id(0))
    )


def test_what_is_wrong_with_a_commits_content_is_said_at_the_reference() -> None:
    history = MemoryHistory([MemoryTree({PATH: b"---\nversin: 4\n---\nx\n"}), MemoryTree({})])
    head = one(None, "fine")
    said = ask(head, Pin(commit=commit_id(0)), history)
    assert said.startswith(f"{ASKED} at commit 000000000000, {PATH}:2:1: unknown key")
    assert ask(head, Pin(commit=commit_id(1)), history) == (
        f'{ASKED} there is no file "{PATH}" at commit 000000000000'
    )


# --- skills


def test_a_version_of_a_skill_is_its_whole_folder() -> None:
    old, new = skill(2, "Do.", steps="one"), skill(3, "Do more.", steps="two")
    history = MemoryHistory([old, new])
    assert ask_skill(new, Pin(number=2), history) == {"SKILL.md": "Do.\n", "steps.md": "one"}
    assert ask_skill(MemoryTree({}), Pin(number=3), history) == {
        "SKILL.md": "Do more.\n",
        "steps.md": "two",
    }
    said = ask_skill(skill(3, "Do more.", steps="three"), None, history)
    assert isinstance(said, str)
    assert said.startswith("skills/runbook/SKILL.md:4:21 v3 of ")
    assert "bump to v4" in said


def test_a_skill_that_reaches_out_of_its_folder_has_no_version() -> None:
    inside = skill(1, "Do.", steps="one")
    files = {path: inside.read(path) for path, _ in inside.walk()}
    for target, works in (("steps.md", True), ("../../secret.md", False), ("/etc/passwd", False)):
        tree = MemoryTree(
            {**files, "secret.md": b"secret"}, links={"skills/runbook/linked.md": target}
        )
        found = declarations(tree, ["skills/runbook/SKILL.md"])
        assert [d.number for d in found] == ([1] if works else [])


# --- the index


def test_content_that_could_not_be_used_does_not_take_its_number() -> None:
    typo = MemoryTree({PATH: b"---\nversion: 4\ndescripton: x\n---\nfour\n"})
    empty = MemoryTree({PATH: b"---\nversion: 4\n---\n"})
    history = MemoryHistory([typo, empty, one(4, "four")])
    assert history.index[PATH, 4].commit == commit_id(2)


def test_a_number_that_is_owned_is_not_given_again() -> None:
    def said(*bodies: str) -> list[Declaration]:
        return [d for body in bodies for d in declarations(one(4, body), [PATH])]

    (first,) = grown({}, said("four", "else"), commit=commit_id(0), at=START)
    assert first.oid == one(4, "four").oid(PATH)
    assert grown({(PATH, 4): first}, said("else"), commit=commit_id(1), at=START) == ()


def test_a_change_beside_skill_md_is_other_content_of_the_skill() -> None:
    trees = [skill(1, "Do.", steps="one"), skill(1, "Do.", steps="two")]
    index = indexed(trees)
    assert index["skills/runbook", 1].oid == trees[0].oid("skills/runbook")
    assert declarations(trees[1], ["skills/runbook/steps.md"])[0].oid == trees[1].oid(
        "skills/runbook"
    )


PATHS = (PATH, "agents/x/x.md", "docs/notes.md", "skills/runbook/SKILL.md")
contents = st.sampled_from(
    [
        b"no front matter",
        b"---\nversion: 1\n---\n",
        b"---\nversion: one\n---\nx",
        *(text(number, body) for number in (1, 2, 3) for body in ("a", "b")),
        *(
            skill(number, body).read("skills/runbook/SKILL.md")
            for number in (1, 2, 3)
            for body in ("a", "b")
        ),
    ]
)
commits = st.lists(
    st.dictionaries(st.sampled_from(PATHS), contents).map(MemoryTree), min_size=1, max_size=8
)


@settings(max_examples=150, deadline=None)
@given(commits, st.data())
def test_whatever_is_committed_the_first_to_declare_a_number_owns_it_for_ever(
    trees: list[MemoryTree], data: st.DataObject
) -> None:
    whole = indexed(trees)
    expected: dict[tuple[str, int], tuple[str, str]] = {}
    for number, tree in enumerate(trees):
        for declared in declarations(tree, [path for path, _ in tree.walk()]):
            expected.setdefault((declared.path, declared.number), (declared.oid, commit_id(number)))
    assert {key: (r.oid, r.commit) for key, r in whole.items()} == expected

    cut = data.draw(st.integers(0, len(trees)))
    half = indexed(trees[:cut])
    before = trees[cut - 1] if cut else None
    assert indexed(trees[cut:], half, first=cut, before=before) == whole, "in two steps as in one"
    assert indexed(trees, whole) == whole, "walking again changes nothing"


@settings(max_examples=100, deadline=None)
@given(commits, st.sampled_from(PATHS), st.integers(1, 3))
def test_whatever_is_committed_a_version_reads_the_same_at_every_later_head(
    trees: list[MemoryTree], path: str, number: int
) -> None:
    history = MemoryHistory(trees)
    bodies = {
        ask(tree, Pin(number=number), history, path=path)
        for tree in trees
        if not ask(tree, Pin(number=number), history, path=path).startswith((str(ASKED), path))
    }
    assert len(bodies) <= 1


# --- excerpts


def test_an_excerpt_shows_one_thing_at_its_place() -> None:
    tree = MemoryTree({"a/b/c.md": b"c", "a/d": b"d", "e": b"e"}, links={"a/b/up": "../d"})
    excerpt = Excerpt.of(tree, "a/b")
    assert [path for path, _ in excerpt.walk()] == ["a/b/c.md", "a/b/up"]
    assert excerpt.read("a/b/c.md") == b"c"
    assert excerpt.oid("a/b") == tree.oid("a/b")
    assert excerpt.oid("") == MemoryTree({"a/b/c.md": b"c"}, links={"a/b/up": "../d"}).oid("")
    for path in ("a/b/up", "a/d", "e", "a/b/x"):
        with pytest.raises(MissingPath):
            excerpt.read(path)


def test_an_excerpt_of_a_file_is_no_directory() -> None:
    excerpt = Excerpt.of(MemoryTree({"a/b.md": b"b"}), "a/b.md")
    assert excerpt.read("a/b.md") == b"b"
    with pytest.raises(MissingPath):
        excerpt.read("a/b.md/c")


def test_links_and_the_root_have_no_excerpt() -> None:
    tree = MemoryTree({"a/b.md": b"b"}, links={"l": "a", "a/m.md": "b.md"})
    for path in ("l", "l/b.md", "a/m.md", ""):
        with pytest.raises(UnsafePath):
            Excerpt.of(tree, path)
    for path in ("a/x", "a/b.md/x"):
        with pytest.raises(MissingPath):
            Excerpt.of(tree, path)


def test_a_release_says_what_it_is_of() -> None:
    history = MemoryHistory([one(4, "four")])
    released = history.released(PATH, 4)
    assert isinstance(released, Released)
    assert (released.oid, released.number) == (one(4, "four").oid(PATH), 4)
