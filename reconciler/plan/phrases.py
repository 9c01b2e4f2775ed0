"""How a plan says a value: short, for people, and safe to hand on.

A plan's sentences are plain text in which every value from the repository stands between
backticks. `tick` is the only maker of them, and no value can hold one, so that a renderer can tell
our words from theirs: code style in Markdown, a colour in a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.values import Json, canonical_json, show_usd
from reconciler.findings import printable

LONGEST = 80
"""Characters of one value within a sentence; what is approved is bound by digests, not by this."""
NOTHING = "none"
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"))
_SIZES = ((1024**3, "g"), (1024**2, "m"), (1024, "k"))


def tick(value: object) -> str:
    """A value from the repository, between backticks, on one line and shortened."""
    text = printable(str(value)).replace("`", "ˋ")
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    return f"`{text}`" if text else "nothing"


def ticks(values: Iterable[object], *, most: int = 6) -> str:
    """Values with commas between; the first `most` of them and how many more there are."""
    found = list(values)
    shown = ", ".join(tick(value) for value in found[:most])
    return shown if len(found) <= most else f"{shown} and {len(found) - most} more"


def money(value: Json) -> str:
    """Nano-dollars as dollars."""
    return NOTHING if value is None else show_usd(whole(value))


def duration(value: Json) -> str:
    """Milliseconds as people write them: `90s`, `1h30m`."""
    if value is None:
        return NOTHING
    left, parts = whole(value), []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join([*parts, *([f"{left}ms"] if left else [])]) or "0s"


def seconds(value: Json) -> str:
    """Whole seconds as a duration."""
    return NOTHING if value is None else duration(whole(value) * 1000)


def size(value: Json) -> str:
    """Bytes as people write them: `512m`, `1g`."""
    if value is None:
        return NOTHING
    count = whole(value)
    for unit, letter in _SIZES:
        if count and count % unit == 0:
            return f"{count // unit}{letter}"
    return f"{count:,} bytes"


def number(value: Json) -> str:
    """`400,000`."""
    return NOTHING if value is None else f"{whole(value):,}"


def thousandths(value: Json) -> str:
    """An integer of thousandths as a decimal: 1250 is `1.25`."""
    if value is None:
        return NOTHING
    whole_part, rest = divmod(whole(value), 1000)
    return f"{whole_part}.{rest:03}".rstrip("0").rstrip(".") or "0"


def percent(value: Json) -> str:
    """An integer of thousandths as a percentage: 800 is `80 %`."""
    if value is None:
        return NOTHING
    return f"{thousandths(whole(value) * 100)} %"


def switch(value: Json) -> str:
    """`yes` or `no`."""
    return "yes" if value else "no"


def secret(value: Json) -> str:
    """A reference to a secret: where it is found, never what it is."""
    if not isinstance(value, dict):
        return "no key"
    return next(
        (
            f"the secret {tick(f'{kind}:{name}')}"
            for kind, name in value.items()
            if name is not None
        ),
        "no key",
    )


def command(value: Json) -> str:
    """Program and arguments, in their order."""
    return tick(" ".join(texts(value))) if texts(value) else NOTHING


def calls(value: Json) -> str:
    """A recording, by how much is on it."""
    return plural(len(value), "recorded call") if isinstance(value, list) else NOTHING


def plain(value: Json) -> str:
    """Anything else: a text as it is, a list by its items, the rest as JSON."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return switch(value)
    if isinstance(value, str | int):
        return tick(value)
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return ticks(value) if value else NOTHING
    return tick(canonical_json(value).decode())


def whole(value: Json) -> int:
    """A number of a document. A stored value that is none counts as 0 for showing."""
    return value if isinstance(value, int) else 0


def texts(value: Json) -> tuple[str, ...]:
    """A list of texts of a document; `()` for anything else."""
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def record(value: Json) -> dict[str, Json]:
    """A mapping of a document; empty for anything else."""
    return value if isinstance(value, dict) else {}


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 agent`, `2 agents`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
