"""One guard: the rules that apply to a call, over a text, a document or a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gateway.guardrails import texts
from gateway.guardrails.asking import Answer, Ask, put
from gateway.guardrails.compiled import Compiled, Rules
from gateway.guardrails.scan import replaced, scan
from gateway.guardrails.texts import Walk
from gateway.guardrails.verdict import Book, CheckError, Found, Verdict
from gateway.guardrails.windows import Stage
from gateway.policy.rules import Hook

AT_ONCE = 8
"""Texts of one document that services are asked about at the same time."""

T = TypeVar("T")
Each = Callable[[str, Book], str]
Judging = Callable[[str, Any, Book], None]


class Guard:
    """The rules of a call at one hook. Holds nothing of a call: use it for any number."""

    def __init__(
        self,
        hook: Hook,
        rules: Rules,
        *,
        agent: str,
        team: str,
        model: str | None = None,
        tool: str | None = None,
    ) -> None:
        self._hook = hook
        self._rules = rules
        what = {"model": model} if model is not None else {"tool": tool}
        self._about = {"hook": str(hook), "agent": agent, "team": team, **what}
        self._salt = json.dumps(self._about).encode()
        self.asks = bool(rules.asked)
        """Whether a service must be asked: then only `check` and `check_through` may be used."""
        self.refuses = rules.enforces
        """Whether any rule is more than an audit."""
        self.buffers = self.asks or any(r.rule.mode != "audit" for r in rules.judges)
        """Whether a rule judges the whole: a stream is then released at its end only."""

    def look(self, text: str, *, value: Any = None) -> Verdict[str]:
        """Look at one text that is the whole. `value`: the JSON value it stands for, such as a
        tool's arguments. Raises Refused."""
        assert not self.asks, "a guard that asks must be awaited: check"
        book = Book(self._hook)
        return Verdict(self._look(text, value, book), book.findings)

    def look_through(self, document: T, walk: Walk) -> Verdict[T]:
        """Look at every text in a document (`texts.said`, `everything`, `result`). Raises Refused;
        Refusal for one that is nested too deep."""
        assert not self.asks, "a guard that asks must be awaited: check_through"
        book = Book(self._hook)
        return Verdict(self._through(document, walk, book), book.findings)

    async def check(self, text: str, ask: Ask, *, value: Any = None) -> Verdict[str]:
        """`look`, and then the services. Raises Refused."""
        book = Book(self._hook)
        text = self._look(text, value, book)
        return Verdict(await self._asked(text, ask, book), book.findings)

    async def check_through(self, document: T, ask: Ask, walk: Walk) -> Verdict[T]:
        """`look_through`, and then the services about every text. Raises Refused."""
        book = Book(self._hook)
        document = self._through(document, walk, book)
        if self.asks:
            free = asyncio.Semaphore(AT_ONCE)

            async def one(text: str) -> str:
                async with free:
                    return await self._asked(text, ask, book)

            every = tuple(dict.fromkeys(texts.every(document, walk)))
            # All are waited for, so that none goes on alone; the first that refuses is told.
            answers = await asyncio.gather(*map(one, every), return_exceptions=True)
            new: dict[str, str] = {}
            for text, answer in zip(every, answers, strict=True):
                if isinstance(answer, BaseException):
                    raise answer
                new[text] = answer
            document = walk(document, lambda text: new.get(text, text))
        return Verdict(document, book.findings)

    def window(self) -> Window:
        """For one stream of text. Not for guards that ask: keep the text, and `check` it.

        Raises Refused: a rule that cannot be read refuses before anything came.
        """
        assert not self.asks, "a guard that asks must be awaited: check"
        return Window(self._rules, self._hook, self._each, self._judge, holds=self.buffers)

    def _look(self, text: str, value: Any, book: Book) -> str:
        self._fail(book)
        text = self._each(text, book)
        self._judge(text, value, book)
        return text

    def _through(self, document: T, walk: Walk, book: Book) -> T:
        self._fail(book)
        if self._rules.each:
            document = walk(document, lambda text: self._each(text, book))
        if self._rules.judges:
            self._judge(*self._whole(document, walk), book)
        return document

    def _whole(self, document: Any, walk: Walk) -> tuple[str, Any]:
        """The whole of a document as text, and as the JSON value that it stands for."""
        if self._hook is Hook.TOOL_INPUT:
            return json.dumps(document, ensure_ascii=False, default=str), document
        if self._hook is Hook.MODEL_OUTPUT:
            return "".join(texts.every(document, texts.spoken)), None
        value = document.get("structuredContent") if isinstance(document, Mapping) else None
        return "\n".join(texts.every(document, walk)), value

    def _fail(self, book: Book) -> None:
        for each in self._rules.broken:
            assert each.broken is not None
            book.fails(each.rule, each.broken)

    def _each(self, text: str, book: Book) -> str:
        if not self._rules.each:
            return text
        seen = self._rules.clean
        digest = seen.digest(text)
        if digest in seen:
            return text
        before, new = book.entries, text
        for each in self._rules.each:
            new = _searched(each, new, book)
        if new is text and book.entries == before:
            seen.add(digest)
        return new

    def _judge(self, text: str, value: Any, book: Book) -> None:
        if not text and self._hook is Hook.MODEL_OUTPUT:
            return  # a turn that only calls tools says nothing that could be judged
        for each in self._rules.judges:
            assert each.judge is not None
            try:
                why = each.judge(text, value)
            except CheckError as error:
                book.fails(each.rule, error)
                continue
            if why is not None:
                book.breaks(each.rule, why)

    async def _asked(self, text: str, ask: Ask, book: Book) -> str:
        if not self.asks or not text:
            return text
        seen = self._rules.allowed
        digest = seen.digest(text, self._salt)
        if digest in seen:
            return text
        before, new = book.entries, text

        async def answer(each: Compiled, about: str) -> Answer | CheckError:
            assert each.http is not None
            try:
                return await put(ask, each.http, {**self._about, "text": about})
            except CheckError as error:
                return error

        for each in self._rules.asked:
            if each.rule.action == "mutate":
                new = _answered(each, await answer(each, new), new, book)
        rest = [each for each in self._rules.asked if each.rule.action != "mutate"]
        for each, given in zip(
            rest, await asyncio.gather(*(answer(e, new) for e in rest)), strict=True
        ):
            _answered(each, given, new, book)
        if new == text and book.entries == before:
            seen.add(digest)
        return new


class Window:
    """A guard over one stream of text."""

    def __init__(
        self, rules: Rules, hook: Hook, each: Each, judge: Judging, *, holds: bool
    ) -> None:
        self._book = Book(hook)
        for rule in rules.broken:
            assert rule.broken is not None
            self._book.fails(rule.rule, rule.broken)
        self._stages = [Stage(rule.rule, rule.searches, self._book) for rule in rules.each]
        self._each = each
        self._judge = judge if rules.judges else None
        self._holds = holds
        self._kept: list[str] = []

    @property
    def findings(self) -> tuple[Found, ...]:
        """What was found so far."""
        return self._book.findings

    def feed(self, text: str) -> str:
        """What may be released now; often less than came, sometimes nothing. Raises Refused."""
        return self._pass(text, last=False)

    def arguments(self, text: str) -> str:
        """The arguments, as JSON text, of a tool call in the stream. They are looked at when they
        are all there, value by value: nobody can use a part of them. Raises Refused."""
        return texts.json_text(text, lambda value: self._each(value, self._book))

    def end(self) -> str:
        """The rest, at the end of the stream. Raises Refused."""
        rest = self._pass("", last=True)
        if self._judge is None:
            return rest
        whole = "".join(self._kept)
        self._judge(whole, None, self._book)
        return whole if self._holds else rest

    def _pass(self, text: str, *, last: bool) -> str:
        for stage in self._stages:
            text = stage.feed(text, last=last)
        if self._judge is not None:
            self._kept.append(text)
            return "" if self._holds and not last else text
        return text


def _searched(each: Compiled, text: str, book: Book) -> str:
    try:
        spans, _ = scan(each.searches, text, 0, whole=True)
    except CheckError as error:
        book.fails(each.rule, error)
        return text
    if spans and book.changes(each.rule, (span.what for span in spans)):
        return replaced(text, spans)
    return text


def _answered(each: Compiled, given: Answer | CheckError, text: str, book: Book) -> str:
    if isinstance(given, CheckError):
        book.fails(each.rule, given)
        return text
    if not given.allow:
        book.breaks(each.rule, "is refused by its service", given.reason)
        return text
    if each.rule.action != "mutate" or given.text is None or given.text == text:
        return text
    return given.text if book.changes(each.rule, ["what its service replaces"]) else text
