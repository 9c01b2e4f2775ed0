"""docs/language says what the models say, and every document it shows loads."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gateway import policy
from reconciler.config.load import load
from reconciler.config.models import KINDS
from reconciler.config.models.agent import SkillHeader, TextHeader
from reconciler.config.pages import pages
from reconciler.config.positions import parse, parse_text, split_front_matter
from reconciler.config.schema import kinds
from reconciler.config.shapes import kind_of
from reconciler.findings import Severity
from reconciler.source.tree import DirectoryTree

FOLDER = Path(__file__).parents[2] / "docs" / "language"
EXAMPLES = FOLDER / "examples"
REMEDY = "run: python -m reconciler.config.pages docs/language"
NOT_SERVED = {"event", "webhook", "api", "manual"}
"""Kinds of triggers of which a loop can have one only; the example has another."""


@pytest.mark.parametrize("name", sorted({*pages(EXAMPLES), *(p.name for p in FOLDER.glob("*.md"))}))
def test_the_page_is_current(name: str) -> None:
    page = FOLDER / name
    assert page.exists(), REMEDY
    assert pages(EXAMPLES).get(name) == page.read_text(encoding="utf-8"), REMEDY


def test_there_is_a_page_for_every_kind_of_document() -> None:
    assert {model for _, model in kinds().values()} == {*KINDS.values(), SkillHeader, TextHeader}


@pytest.mark.parametrize("repository", ["minimal", "full"])
def test_the_documents_shown_load(repository: str) -> None:
    loaded = load(DirectoryTree(EXAMPLES / repository))
    assert [str(f) for f in loaded.findings if f.severity is Severity.ERROR] == []
    assert loaded.fleet is not None
    assert loaded.fleet.agents
    assert all(agent.suite for agent in list(loaded.fleet.agents.values())[:1])


@pytest.mark.parametrize("kind", list(kinds()))
def test_every_page_shows_a_small_document_and_a_full_one(kind: str) -> None:
    page = (FOLDER / f"{kind}.md").read_text(encoding="utf-8")
    assert "## A small one" in page or kind == "instructions"
    assert "## Every key" in page


def _documents() -> Iterator[tuple[type[BaseModel], Any]]:
    for path in sorted((EXAMPLES / "full").rglob("*")):
        if path.suffix in (".yaml", ".lock"):
            document = parse(path.name, path.read_bytes())
            model = kind_of(document)
            assert model is not None, path
            yield model, document.data
        elif path.name == "SKILL.md" or path.name == "triage.md":
            front, _, _ = split_front_matter(path.read_text())
            model = SkillHeader if path.name == "SKILL.md" else TextHeader
            yield model, parse_text(path.name, front or "").data


def _used(annotation: Any, value: Any) -> Iterator[tuple[str, str]]:
    """(model, key) for every key that `value` gives a model inside `annotation`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if isinstance(value, dict):
            hints = typing.get_type_hints(annotation, include_extras=True)
            for name, field in annotation.model_fields.items():
                key = field.alias or name
                if key in value:
                    yield annotation.__name__, key
                    yield from _used(hints[name], value[key])
        return
    repeats = typing.get_origin(annotation) in (list, dict)
    items = value.values() if isinstance(value, dict) else value
    for argument in typing.get_args(annotation):
        yield from _used(argument, value)
        if repeats and isinstance(value, dict | list):
            for item in items:
                yield from _used(argument, item)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation.__module__.startswith(policy.__name__):
            return
        yield annotation
        for hint in typing.get_type_hints(annotation, include_extras=True).values():
            yield from _models(hint)
    for argument in typing.get_args(annotation):
        yield from _models(argument)


def test_the_full_example_uses_every_key_there_is() -> None:
    used = {pair for model, data in _documents() for pair in _used(model, data)}
    everything = {
        (model.__name__, field.alias or name)
        for _, root in kinds().values()
        for model in _models(root)
        for name, field in model.model_fields.items()
    }
    missing = {f"{model}.{key}" for model, key in everything - used}
    assert missing - {f"Trigger.{key}" for key in NOT_SERVED} == set(), (
        "show them in docs/language/examples/full"
    )


def test_the_page_of_scripts_names_every_key_of_a_rule() -> None:
    page = (FOLDER / "script.md").read_text(encoding="utf-8")
    for model in (policy.Script, policy.Rule, policy.When):
        for name in model.model_fields:
            assert f"`{name}`" in page, name
    for model in (policy.Recall, policy.ScriptedCall):
        assert f"`{{{', '.join(model.model_fields)}}}`" in page
