"""The values all agents share and the history, watched: what of them an agent depends on."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any, Protocol, TypeVar

from gateway.policy import Policy
from reconciler.config.shared import Shared
from reconciler.config.tracing import EVERY, Keyed, Listed, Need, Note
from reconciler.config.versions import History, Released
from reconciler.source.tree import Tree
from reconciler.source.watched import Of, Touched

K = TypeVar("K")


class Result(Protocol):
    """Anything that knows what it was made from."""

    @property
    def needs(self) -> frozenset[Need]:
        """What it depends on."""
        ...


class _Either:
    """The keys of several mappings, as one list of names."""

    def __init__(self, *parts: Mapping[str, Any]) -> None:
        self._parts = parts

    def __contains__(self, name: object) -> bool:
        return any([name in part for part in self._parts])  # noqa: C419 - each is to be noted

    def __iter__(self) -> Iterator[str]:
        return iter([name for part in self._parts for name in part])

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


_COMPUTED = tuple(
    name for name, value in vars(Shared).items() if isinstance(value, cached_property)
)
_ATTRIBUTES = frozenset({field.name for field in fields(Shared)} | set(_COMPUTED))
"""What of `Shared` is watched. Its properties and methods work on what is watched."""


class SharedView(Shared):
    """What all agents share, as one of them sees it: every look is noted."""

    def __init__(self, of: Shared, note: Note) -> None:
        self.__dict__.update(_of=of, _note=note, _kept={})

    def __getattribute__(self, name: str) -> Any:
        if name not in _ATTRIBUTES:
            return super().__getattribute__(name)
        mine = super().__getattribute__("__dict__")
        kept = mine["_kept"].get(name)
        if kept is not None:
            return kept
        value, note = getattr(mine["_of"], name), mine["_note"]
        if isinstance(value, Policy):
            value = mine["_kept"][name] = _policy(value, note)
        elif isinstance(value, dict):
            value = mine["_kept"][name] = Keyed(value, name, note)
        else:
            note(("shared", name))
        return value

    @property
    def model_names(self) -> Any:
        """As that of `Shared`, without looking through all of them for one."""
        return _Either(self.models, self.virtual_models)


def _policy(policy: Policy, note: Note) -> Policy:
    seen: dict[str, Any] = {}
    for name in type(policy).model_fields:
        value = getattr(policy, name)
        if isinstance(value, Mapping):
            seen[name] = Keyed(value, name, note)
        elif isinstance(value, tuple):
            seen[name] = Listed.of(value, name, note)
    return policy.model_copy(update=seen)


def changed_values(old: Shared, new: Shared) -> set[Need]:
    """The needs of shared values that differ."""
    if old is new:
        return set()
    found: set[Need] = set()
    for name in _ATTRIBUTES:
        one, two = getattr(old, name), getattr(new, name)
        if isinstance(one, Policy):
            continue  # made of the others, and watched as they are
        if not (isinstance(one, dict) and isinstance(two, dict)):
            if one != two:
                found.add(("shared", name))
            continue
        there = one.keys() ^ two.keys()
        keys = there | {key for key in one.keys() & two.keys() if one[key] != two[key]}
        found |= {("shared", name, key) for key in keys}
        found |= {("shared", name, key, "is there") for key in there}
        if keys or list(one) != list(two):
            found.add(("shared", name, EVERY))
    return found


Answers = dict[Need, Hashable]


class AskedHistory:
    """The history, noting what was asked. Only answers that may change are remembered."""

    def __init__(self, history: History, note: Note, answers: Answers) -> None:
        self._history = history
        self._note = note
        self._answers = answers

    def _asked(self, question: str, *arguments: Any) -> Any:
        need = ("history", question, *arguments)
        self._note(("history", "absent"))
        self._note(need)
        answer = ask(self._history, need)
        if answer is None or question in ("numbers", "absent"):
            self._answers[need] = answer
        return answer

    @property
    def absent(self) -> str | None:
        """See `History`."""
        found: str | None = self._asked("absent")
        return found

    def released(self, path: str, number: int) -> Released | None:
        """See `History`."""
        found: Released | None = self._asked("released", path, number)
        return found

    def numbers(self, path: str) -> tuple[int, ...]:
        """See `History`."""
        found: tuple[int, ...] = self._asked("numbers", path)
        return found

    def content(self, released: Released) -> Tree | None:
        """See `History`."""
        found: Tree | None = self._asked("content", released)
        return found

    def at(self, commit: str) -> Tree | None:
        """See `History`."""
        found: Tree | None = self._asked("at", commit)
        return found


def ask(history: History, need: Need) -> Any:
    """The history's answer to a need."""
    if need[1] == "absent":
        return history.absent
    return getattr(history, need[1])(*need[2:])


def changed_answers(answers: Mapping[Need, Hashable], history: History) -> set[Need]:
    """The needs whose answer is another now."""
    return {need for need, answer in answers.items() if ask(history, need) != answer}


class Users:
    """Who ever needed what, by need: those whom a change may reach are found without a look at
    the others.

    Shared by all loads that go on from one, and only ever grown: a name that is found may need
    something else by now, so whoever asks compares with the needs it has.
    """

    def __init__(self) -> None:
        self._names: dict[Need, set[str]] = {}

    def note(self, name: str, needs: Iterable[Need]) -> None:
        """`name` needs all of these."""
        for need in needs:
            known = self._names.get(need)
            if known is None:
                self._names[need] = {name}
            else:
                known.add(name)

    def of(self, needs: Iterable[Need]) -> set[str]:
        """Everybody who ever needed one of these."""
        return set[str]().union(*(self._names.get(need, ()) for need in needs))


class Stale:
    """Which needs have, or may have, another answer than when they were noted."""

    def __init__(self, touched: Touched) -> None:
        self.touched = touched
        self._needs: set[Need] = set(touched.needs)

    def add(self, needs: Iterable[Need]) -> None:
        """These too."""
        self._needs.update(needs)

    def any(self, needs: frozenset[Need]) -> bool:
        """Whether something with these needs must be made again."""
        return not self._needs.isdisjoint(needs) or (
            bool(self.touched.turned) and self._turned(needs)
        )

    def among(self, results: Mapping[K, Result]) -> set[K]:
        """The keys of the results that must be made again. One pass, as there may be thousands."""
        fresh = self._needs.isdisjoint
        found = {key for key, result in results.items() if not fresh(result.needs)}
        if self.touched.turned:
            found |= {key for key, result in results.items() if self._turned(result.needs)}
        return found

    def among_users(self, results: Mapping[str, Result], users: Users) -> set[str]:
        """As `among`, of results whose needs `users` was told."""
        if self.touched.turned:
            return self.among(results)
        fresh = self._needs.isdisjoint
        return {
            name
            for name in users.of(self._needs)
            if (result := results.get(name)) is not None and not fresh(result.needs)
        }

    def _turned(self, needs: frozenset[Need]) -> bool:
        turned = self.touched.is_turned
        return any(isinstance(need[0], Of) and turned(need[1]) for need in needs)
