"""The kinds of values documents are made of, and how people write them.

Each kind turns the written form into the form the rest of the system uses: `20m` into
milliseconds, `512m` into bytes, `0.50` dollars into nano-dollars. No floats: decimals stay exact,
and what cannot be represented exactly is refused instead of rounded.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.values import NANO, Millis, NanoUSD

MAX_DECIMAL = Decimal(10) ** 12


class Document(BaseModel):
    """Base of everything that is written in YAML: strict types, unknown keys are errors.

    The text under a field is its documentation in docs/language and in editors.
    """

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True
    )


def _matching(pattern: str | re.Pattern[str], words: str) -> Any:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"not a valid name: {words}")
        return value

    return AfterValidator(check)


NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")

Name = Annotated[
    str,
    _matching(
        NAME,
        "use lower-case letters, digits and hyphens, at most 64 characters",
    ),
]
"""Name of a fleet, agent, team, skill, sub-agent, rollout policy, budget, suite or case."""
Label = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}",
        "use letters, digits, '.', '_', ':', '/' and '-', at most 128 characters",
    ),
]
"""Name of a model, provider or image; a person's login."""
Login = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "use letters, digits, '.', '_' and '-', at most 64 characters",
    ),
]
"""Name of a person or a service that calls from outside a run."""
ServerName = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}",
        "use letters, digits, '_' and '-', at most 64 characters (no '.': it divides server.tool)",
    ),
]
ToolName = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}",
        "use letters, digits, '_', '.', '/' and '-', at most 128 characters",
    ),
]


def _one_line(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    if not value.isprintable():
        raise ValueError("must be one line without control characters")
    if len(value) > 1000:
        raise ValueError("is longer than 1000 characters")
    return value


Line = Annotated[str, AfterValidator(_one_line)]
"""One printable line."""


def _reference(value: str) -> str:
    _one_line(value)
    if value.startswith("/"):
        raise ValueError("an absolute path is not allowed; write it relative to this file")
    return value


Reference = Annotated[str, AfterValidator(_reference)]
"""Path of another file, relative to the file it is written in."""

MAX_INLINE = 20_000
"""Characters of instructions that are written in the YAML itself; longer texts are files."""
_FILE = re.compile(r"(\.{0,2}/)?[^\n]*\.(md|markdown|txt)(@[^\s@]*)?")


def is_text(value: str) -> bool:
    """Whether instructions are the text itself rather than the path of a file.

    A path is one line that has no blank in it, or starts with `./` or `../`, or ends like the name
    of a text file.
    """
    if "\n" in value:
        return True
    path = value.startswith(("./", "../", "/")) or _FILE.fullmatch(value)
    return not path and any(c.isspace() for c in value.strip())


def _instructions(value: str) -> str:
    if not is_text(value):
        return _reference(value)
    if not value.strip():
        raise ValueError("is empty")
    if len(value) > MAX_INLINE:
        raise ValueError(f"is longer than {MAX_INLINE:,} characters; put it into a file")
    return value


Instructions = Annotated[str, AfterValidator(_instructions)]
"""Path of a Markdown file, relative to the file it is written in, or the text itself."""


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


Regex = Annotated[str, AfterValidator(_regex)]

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")
_DURATION_UNITS = (86_400_000, 3_600_000, 60_000, 1_000, 1)


def parse_duration(value: Any) -> Any:
    """`20m`, `2h`, `1h30m`, `14d`, `500ms` in milliseconds; ValueError for anything else."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) and len(value) < 40 else None
    if match is None or not value:
        raise ValueError("not a duration; write it like 30s, 20m, 2h, 1h30m or 14d")
    return sum(int(n) * unit for n, unit in zip(match.groups(), _DURATION_UNITS, strict=True) if n)


_SIZE = re.compile(r"(\d{1,9})([kmg])i?b?", re.IGNORECASE)


def parse_size(value: Any) -> Any:
    """`512m`, `1g`, `64k` in bytes (powers of 1024); ValueError for anything else."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a size; write it like 512m or 1g")
    return int(match[1]) * 1024 ** (" kmg".index(match[2].lower()))


def parse_number(value: Any) -> Any:
    """An integer or decimal as a Decimal without trailing zeros (0.10 and 0.1 are one value)."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("not a number")
    number = Decimal(value)
    if abs(number) > MAX_DECIMAL:
        raise ValueError("the number is too large")
    return Decimal(int(number)) if number == int(number) else number.normalize()


def _scaled(factor: int, what: str, unit: str) -> Any:
    """Reads a number of `what`, as an integer count of `unit`; exact or an error."""

    def convert(value: Any) -> int:
        try:
            number = parse_number(value)
        except ValueError as error:
            raise ValueError(str(error).replace("a number", f"an amount of {what}")) from None
        if number < 0:
            raise ValueError(f"an amount of {what} is not negative")
        if number * factor != int(number * factor):
            raise ValueError(f"finer than one {unit}; write fewer decimal places")
        return int(number * factor)

    return BeforeValidator(convert)


Duration = Annotated[Millis, BeforeValidator(parse_duration), Field(gt=0)]
"""A length of time: `30s`, `20m`, `2h`, `1h30m`, `14d`."""
Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
"""An amount of memory or disk: `64k`, `512m`, `1g` (powers of 1024)."""
Usd = Annotated[NanoUSD, _scaled(NANO, "dollars", "nano-dollar")]
"""Dollars: `0.50`, `3`. Kept as integer nano-dollars."""
UsdPerMillion = Annotated[NanoUSD, _scaled(NANO // 1_000_000, "dollars", "nano-dollar a token")]
"""Dollars per million tokens: `3.00`. Kept as integer nano-dollars per token."""
Cpus = Annotated[int, _scaled(1000, "CPUs", "thousandth"), Field(gt=0)]
"""CPUs: `1`, `0.5`. Kept as integer thousandths."""
Share = Annotated[int, _scaled(1000, "shares", "thousandth"), Field(gt=0, le=1000)]
"""A number above 0 and at most 1, such as `0.10`. Kept as integer thousandths."""
Ratio = Annotated[int, _scaled(1000, "ratios", "thousandth"), Field(ge=1000, le=100_000)]
"""A ratio of candidate to stable, from 1 to 100. Kept as integer thousandths."""
Count = Annotated[int, Field(gt=0, le=10**12)]
"""A whole number above 0; `400_000` may be written for 400000."""


def whole_json(value: Any) -> Any:
    """JSON without fractions: what may enter a digest. ValueError names the first fraction."""
    if isinstance(value, Decimal):
        raise ValueError(f"{value} has a fraction; only whole numbers are allowed here")
    if isinstance(value, dict):
        for item in value.values():
            whole_json(item)
    elif isinstance(value, list):
        for item in value:
            whole_json(item)
    return value


def _parameter(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueError("a parameter is text or a number")
    return str(parse_number(value)) if isinstance(value, Decimal) else value


Parameter = Annotated[int | str, BeforeValidator(_parameter)]
"""A model parameter: text or a number; a decimal is kept as text, so that it stays exact."""


def written_duration(millis: int) -> str:
    """Milliseconds as `parse_duration` reads them: `1h30m`."""
    parts: list[str] = []
    for unit, name in zip(_DURATION_UNITS, ("d", "h", "m", "s", "ms"), strict=True):
        count, millis = divmod(millis, unit)
        parts += [f"{count}{name}"] if count else []
    return "".join(parts)


def written_size(size: int) -> str:
    """Bytes as `parse_size` reads them: `512m`. Every size that was read is a multiple of 1k."""
    for power, unit in ((3, "g"), (2, "m"), (1, "k")):
        if size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)


def written_usd(nano: int) -> str:
    """Nano-dollars as people write dollars, exactly: `0.50`, `3.00`, `0.0042`."""
    whole, rest = divmod(nano, NANO)
    return f"{whole}.{f'{rest:09d}'.rstrip('0'):0<2}"


def written_thousandths(value: int) -> str:
    """Thousandths as a number: `1`, `0.5`, `1.25`."""
    return format((Decimal(value) / 1000).normalize(), "f")
