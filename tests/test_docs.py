"""The documentation is checked against itself and against the command line.

Every relative link and anchor in a Markdown file resolves, and docs/cli.md names exactly the
commands and options that `interlock` has.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "cli.md"
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE_LINK = re.compile(r"^\[[^\]^]+\]:\s*(\S+)", re.MULTILINE)


def documents(root: Path) -> list[Path]:
    """The Markdown that people read here. The example's own files are a fleet's, not docs."""
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def anchors(text: str) -> set[str]:
    """Fragment names of a document's headings, made the way GitHub and GitLab make them."""
    found: dict[str, int] = {}
    names = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", FENCE.sub("", text), re.MULTILINE):
        plain = LINK.sub(lambda match: match[0].split("](")[0].lstrip("![`"), heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        seen = found.get(slug, 0)
        found[slug] = seen + 1
        names.add(f"{slug}-{seen}" if seen else slug)
    return names


def broken_links(root: Path) -> list[str]:
    """`file:line target` for each relative link that leads nowhere."""
    broken = []
    for document in documents(root):
        text = document.read_text(encoding="utf-8")
        prose = FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
        for match in [*LINK.finditer(prose), *REFERENCE_LINK.finditer(prose)]:
            target = match[1]
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            path, _, fragment = target.partition("#")
            there = document.parent / unquote(path) if path else document
            is_document = there.suffix == ".md" and there.is_file()
            if not there.exists() or (
                fragment and is_document and fragment not in anchors(there.read_text("utf-8"))
            ):
                line = prose.count("\n", 0, match.start()) + 1
                broken.append(f"{document.relative_to(root)}:{line} {target}")
    return broken


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every visible command below `command` with the words that call it; groups are walked."""
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from commands(child, f"{path} {name}")
        if not command.invoke_without_command:
            return
    yield path, command


def gaps(root_command: click.Command, reference: str) -> list[str]:
    """What the command line has and the reference lacks, and the other way round."""
    sections = _sections(reference)
    known = dict(commands(root_command, "interlock"))
    known.pop("interlock", None)
    found = [
        f"docs/cli.md describes `{name}`, which is no command"
        for name in sorted(sections.keys() - known.keys())
    ]
    for name, command in known.items():
        if name not in sections:
            found.append(f"docs/cli.md has no section for `{name}`")
            continue
        documented = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", sections[name]))
        options = {
            opt
            for parameter in command.params
            if isinstance(parameter, click.Option) and not parameter.hidden
            for opt in parameter.opts + parameter.secondary_opts
            if opt.startswith("--")
        }
        found += [f"`{name}`: {opt} is not in docs/cli.md" for opt in sorted(options - documented)]
        found += [
            f"`{name}`: docs/cli.md has {opt}, which is no option"
            for opt in sorted(documented - options - {"--help"})
        ]
    return found


def _sections(reference: str) -> dict[str, str]:
    """Text under each heading that is a command: `## interlock rollback`, backticks or not."""
    parts = re.split(r"^#{2,4}\s+`?(interlock(?: [a-z-]+)+)\b.*$", reference, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _command_line() -> click.Group | None:
    """The group behind `interlock`; None as long as there is no command line at all."""
    room = ROOT / "reconciler" / "cli"
    if not (room / "__init__.py").exists() and not room.with_suffix(".py").exists():
        return None
    cli = importlib.import_module("reconciler.cli")
    groups = [each for each in vars(cli).values() if isinstance(each, click.Group)]
    assert groups, "reconciler.cli has no click group at its top: nothing to check docs/cli.md with"
    return next((each for each in groups if each is getattr(cli, "main", None)), groups[0])


def test_every_relative_link_and_anchor_resolves() -> None:
    assert broken_links(ROOT) == []


def test_the_cli_reference_is_current() -> None:
    main = _command_line()
    if main is None:
        assert not REFERENCE.exists(), "docs/cli.md describes a command that does not exist"
        return
    assert REFERENCE.exists(), "write docs/cli.md: a section `## interlock NAME` per command"
    assert gaps(main, REFERENCE.read_text(encoding="utf-8")) == []


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "# One thing\n[a](docs/there.md) [b](docs/gone.md)\n[c](#one-thing) [d](#two)\n"
        "[e](docs/there.md#what-it-is-1) [f](docs/there.md#other) [g](https://example.com/x)\n"
        "```\n[h](in/a/fence.md)\n```\n[i]: docs/lost.md\n"
    )
    (tmp_path / "docs" / "there.md").write_text("## What it is?\n## What it is?\n")
    assert broken_links(tmp_path) == [
        "README.md:2 docs/gone.md",
        "README.md:3 #two",
        "README.md:4 docs/there.md#other",
        "README.md:8 docs/lost.md",
    ]


@pytest.fixture
def sample() -> click.Group:
    group = click.Group("interlock")
    group.add_command(click.Command("hold", params=[click.Option(["--reason"])]))
    group.add_command(click.Group("pr", commands=[click.Command("list")]))
    return group


def test_a_complete_reference_has_no_gaps(sample: click.Group) -> None:
    reference = "## interlock hold AGENT\n`--reason`, `--help`\n## `interlock pr list`\nLists.\n"
    assert gaps(sample, reference) == []


def test_missing_and_invented_commands_and_options_are_found(sample: click.Group) -> None:
    reference = "## interlock hold\n`--until`\n## interlock release\n"
    assert gaps(sample, reference) == [
        "docs/cli.md describes `interlock release`, which is no command",
        "`interlock hold`: --reason is not in docs/cli.md",
        "`interlock hold`: docs/cli.md has --until, which is no option",
        "docs/cli.md has no section for `interlock pr list`",
    ]
