"""docs/language/: one page per kind of document, made from the models.

Each page says what file it is about, explains every key, and shows a small and a full document.
The documents are files of docs/language/examples, two config repos that the tests load; the
tables are of the models. So a page cannot be wrong without a test being red.

`python -m reconciler.config.pages docs/language` writes the pages, and their list into the page
that tells the language as a whole, docs/config-language.md.
"""

# ruff: noqa: E501 - tables read better with one row a line

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from reconciler.config.reference import anchor, models_below, table
from reconciler.config.schema import kinds

MADE = (
    "<!-- Made by `python -m reconciler.config.pages docs/language`: edit the models instead. -->"
)

BEGIN = "<!-- kinds: made by python -m reconciler.config.pages docs/language -->"
END = "<!-- end of kinds -->"

_FILES: Mapping[str, tuple[str, ...]] = {
    "fleet": ("interlock.yaml",),
    "teams": ("teams.yaml",),
    "lock": ("interlock.lock",),
    "models": ("gateway/models.yaml",),
    "servers": ("gateway/mcp-servers.yaml",),
    "budgets": ("gateway/budgets.yaml",),
    "rate-limits": ("gateway/rate-limits.yaml",),
    "guardrails": ("gateway/guardrails.yaml",),
    "caches": ("gateway/caches.yaml",),
    "principals": ("gateway/principals.yaml",),
    "script": ("gateway/scripts/*.yaml",),
    "agent": ("agents/*/agent.yaml",),
    "instructions": ("agents/*/*.md",),
    "skill": ("skills/*/SKILL.md",),
    "suite": ("agents/*/evals/suite.yaml",),
    "case": ("agents/*/evals/cases/*.yaml",),
    "recorded": ("agents/*/evals/recorded.yaml",),
    "sentinel": ("agents/*/evals/sentinels/*.yaml",),
}
"""Kind → where the examples of it are, in either of the two config repos."""

_ABOUT: Mapping[str, str] = {
    "fleet": "The fleet: what every loop inherits, where the record goes, and how changes go live."
    " One for each config repo.",
    "teams": "Who owns which loops and paths, what their loops inherit, and what they may name.",
    "lock": "What git cannot know by itself. `interlock lock` writes it; people review it.",
    "models": "Who serves models, what they cost, and the names that loops use for them.",
    "servers": "Tool servers. A loop may use a tool only when it is granted, and each is classified.",
    "budgets": "Limits on money, tokens and calls. Every budget that matches a call must have room for it.",
    "rate-limits": "How many calls, or tokens, in how much time.",
    "guardrails": "Checks of the texts that go to models and tools, and of those that come back.",
    "caches": "Which calls of models are answered from what was answered before. A call with tools, an answer that was cut off and an eval are never kept.",
    "principals": "People and services that call the gateway from outside a run. `interlock token new` makes a token for one.",
    "script": "The rules of a scripted provider: a model without a network, for tests and for a"
    " start without a key. The first rule whose `when` holds decides the turn.",
    "agent": "A loop: its model, tools, limits, trigger and suite. What it leaves out is inherited"
    " from its team, then from the fleet.",
    "instructions": "What an agent or sub-agent is told, as Markdown. Front matter is optional, and"
    " is not shown to the model.",
    "skill": "What loops know, in the [agentskills.io](https://agentskills.io) format: a folder with a"
    " `SKILL.md` and files beside it. Only the description is always in context.",
    "suite": "The cases that an agent's changes are gated by.",
    "case": "One task with a known good end. External tools answer what is recorded here.",
    "recorded": "Answers of external tools that several cases share.",
    "sentinel": "A deliberately bad variant of the agent. A suite that lets it pass proves nothing.",
}


_MORE: Mapping[str, str] = {
    "script": """\
### Rules

| Key | Means |
|---|---|
| `rules` | the rules, in order |
| `name` | name of the rule |
| `when` | condition; every given part must hold. Left out: always |
| `recall` | value → `{pattern, tool}`: the last match of `pattern` in earlier observations, of tools that match the glob `tool`; the rule does not apply when one is not found |
| `say` | what the model says; `{name}` stands for a value |
| `call` | `{tool, args}`: the tool it calls; texts in `args` may hold values |

Values are the named groups of the patterns that matched. Patterns are Python regular expressions,
searched with MULTILINE on.

| In `when` | Holds when |
|---|---|
| `system`, `not_system` | the pattern is, or is not, found in the system prompt |
| `user` | the pattern is found in the last message of the user |
| `first` | `true`: nothing has been observed yet in this conversation |
| `last_tool` | the glob matches the tool that gave the last observation |
| `last`, `not_last` | the pattern is, or is not, found in the last observation |
| `seen`, `not_seen` | the pattern is, or is not, found in any earlier observation |
| `calls`, `not_calls` | a tool that matches the glob was, or was not, called already |""",
    "skill": """\
### Files beside it

Text files of the folder are part of the skill: at most 200, 512 KiB each and 2 MiB together. The
model reads them one by one with `load_skill`.""",
}
"""What the tables of a kind do not say."""


def pages(examples: Path) -> dict[str, str]:
    """Every page by file name: one per kind, and README.md that lists them.

    `examples` is the folder with the config repos `minimal` and `full`.
    """
    homes = _homes()
    made = {
        f"{kind}.md": _page(kind, title, model, homes, examples)
        for kind, (title, model) in kinds().items()
    }
    return {
        "README.md": f"{MADE}\n\n# The documents of a config repo\n\n{_INTRO}\n\n{index()}",
        **made,
    }


_INTRO = """\
A page for each kind of document: its keys, a small one and a full one. What they mean together is told
in [the language of the config repo](../config-language.md). `interlock schema KIND` prints the same
as JSON Schema, for editors. Every document shown is of one of two config repos,
[minimal](examples/minimal) and [full](examples/full)."""


def index(below: str = "") -> str:
    """A table of all kinds; `below` is the path of the pages from where it stands."""
    rows = ["| Kind | File | Says |", "|---|---|---|"]
    rows += [
        f"| [{kind}]({below}{kind}.md) | {_path(title)} | {_ABOUT[kind]} |"
        for kind, (title, _) in kinds().items()
    ]
    return "\n".join(rows) + "\n"


def listed(page: str) -> str:
    """The page with the current list of kinds between its markers. ValueError without markers."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{index('language/')}\n{END}{after}"


def _path(title: str) -> str:
    """A title with its path in code: `agents/name/agent.yaml`."""
    return re.sub(r"[\w.-]*/[\w./-]+|\w+\.(?:yaml|lock)", lambda found: f"`{found[0]}`", title)


def _page(
    kind: str,
    title: str,
    model: type[BaseModel],
    homes: Mapping[str, str],
    examples: Path,
) -> str:
    parts = [MADE, f"# {kind}", f"{_path(title)[:1].upper()}{_path(title)[1:]}. {_ABOUT[kind]}"]
    for name, heading in (("minimal", "A small one"), ("full", "Every key")):
        shown = list(_shown(examples / name, kind))
        if shown:
            parts += [f"## {heading}", *shown]
    parts += ["## Keys", table(model)]
    for below in dict.fromkeys(models_below(model)):
        if homes[anchor(below)] == kind:
            text = " ".join((below.__doc__ or "").split())
            parts += [f"### {anchor(below)}", text, table(below)]
    if kind in _MORE:
        parts.append(_MORE[kind])
    return _linked("\n\n".join(parts) + "\n", kind, homes)


def _shown(repository: Path, kind: str) -> Iterator[str]:
    for pattern in _FILES[kind]:
        for path in sorted(repository.glob(pattern)):
            text = path.read_text(encoding="utf-8").rstrip("\n")
            fence = "markdown" if path.suffix == ".md" else "yaml"
            if kind == "instructions" and not text.startswith("---") and repository.name == "full":
                continue
            yield f"`{path.relative_to(repository).as_posix()}`\n\n```{fence}\n{text}\n```"


def _homes() -> dict[str, str]:
    """Each mapping inside documents → the kind whose page explains it: the first that has it."""
    homes: dict[str, str] = {}
    for kind, (_, model) in kinds().items():
        for below in models_below(model):
            homes.setdefault(anchor(below), kind)
    return homes


def _linked(text: str, kind: str, homes: Mapping[str, str]) -> str:
    """Links to a mapping that another page explains lead there."""

    def target(found: re.Match[str]) -> str:
        home = homes[found[1].replace("-", " ")]
        return found[0] if home == kind else f"]({home}.md#{found[1]})"

    return re.sub(r"\]\(#([a-z-]+)\)", target, text)


def main(arguments: list[str]) -> int:
    """Write the pages into the folder named; pages of kinds that are no more are removed."""
    folder = Path(arguments[0] if arguments else "docs/language")
    made = pages(folder / "examples")
    for stale in folder.glob("*.md"):
        if stale.name not in made:
            stale.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    narrative = folder.parent / "config-language.md"
    narrative.write_text(listed(narrative.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
