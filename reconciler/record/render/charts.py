"""Small charts for an agent's page: bars per day, as SVG without script, font or outside reference.

Colours are set by the reader's scheme (light or dark) in the picture's own style sheet, which
forges keep when a picture is shown by `<img>`; text has a title and a description for those who
do not see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from gateway.values import show_usd

WIDTH, HEIGHT = 640, 132
_LEFT, _TOP, _BOTTOM = 8, 30, 20
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#59636e}.t{fill:#1f2328;font-weight:600}"
    ".a{fill:#4a7fb5}.b{fill:#c9564c}.c{fill:#9aa4af}.line{stroke:#d1d9e0}"
    "@media(prefers-color-scheme:dark){text{fill:#9198a1}.t{fill:#f0f6fc}"
    ".a{fill:#6ca4de}.b{fill:#e5766b}.c{fill:#6e7681}.line{stroke:#3d444d}}"
)


@dataclass(frozen=True, slots=True)
class Series:
    """One part of every bar: its name, its colour class (a, b, c), a value per day."""

    name: str
    colour: str
    values: Sequence[int]


def cost_chart(days: Sequence[str], live: Sequence[int], evals: Sequence[int]) -> bytes:
    """Nano-dollars per day, live runs and evals."""
    series = (Series("live", "a", live), Series("evals", "c", evals))
    total = sum(live) + sum(evals)
    return bars("Cost per day", days, series, top=show_usd, total=show_usd(total))


def runs_chart(days: Sequence[str], verdicts: Mapping[str, Sequence[int]]) -> bytes:
    """Finished live runs per day, by what they say of their release."""
    series = (
        Series("good", "a", verdicts["good"]),
        Series("bad", "b", verdicts["bad"]),
        Series("no verdict", "c", verdicts["none"]),
    )
    total = sum(sum(part.values) for part in series)
    return bars(
        "Runs per day", days, series, top=str, total=f"{total} runs" if total != 1 else "1 run"
    )


def bars(
    title: str,
    days: Sequence[str],
    series: Sequence[Series],
    *,
    top: object,
    total: str,
) -> bytes:
    """Stacked bars; `top` says how the highest bar's value is written."""
    assert callable(top)
    sums = [sum(part.values[i] for part in series) for i in range(len(days))]
    highest = max(sums, default=0)
    base = HEIGHT - _BOTTOM
    room = base - _TOP
    step = (WIDTH - 2 * _LEFT) // max(1, len(days))
    told = f"{title}, {days[0]} to {days[-1]}: {total}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
        f' height="{HEIGHT}" role="img" aria-label="{escape(told)}">',
        f"<title>{escape(told)}</title><style>{_STYLE}</style>",
        f'<text class="t" x="{_LEFT}" y="16">{escape(title)}</text>',
    ]
    at = WIDTH - _LEFT
    for part in reversed([s for s in series if sum(s.values)]):
        at -= 8 * len(part.name)
        parts.append(f'<text x="{at}" y="16">{escape(part.name)}</text>')
        at -= 14
        parts.append(f'<rect class="{part.colour}" x="{at}" y="7" width="9" height="9" rx="2"/>')
        at -= 12
    for i, day in enumerate(days):
        x, y = _LEFT + i * step, base
        shown = ", ".join(f"{s.name} {top(s.values[i])}" for s in series if s.values[i])
        parts.append(f"<g><title>{day}: {escape(shown or 'nothing')}</title>")
        for part in series:
            tall = part.values[i] * room // highest if highest else 0
            if part.values[i] and tall == 0:
                tall = 1  # something is never drawn as nothing
            y -= tall
            if tall:
                parts.append(
                    f'<rect class="{part.colour}" x="{x + 2}" y="{y}" width="{step - 4}"'
                    f' height="{tall}"/>'
                )
        parts.append("</g>")
    parts.append(f'<line class="line" x1="{_LEFT}" y1="{base}" x2="{WIDTH - _LEFT}" y2="{base}"/>')
    parts.append(f'<text x="{_LEFT}" y="{HEIGHT - 5}">{days[0]}</text>')
    parts.append(f'<text x="{WIDTH - _LEFT}" y="{HEIGHT - 5}" text-anchor="end">{days[-1]}</text>')
    middle = f"{total}, at most {top(highest)} a day" if highest else "nothing yet"
    parts.append(
        f'<text x="{WIDTH // 2}" y="{HEIGHT - 5}" text-anchor="middle">{escape(middle)}</text>'
    )
    return ("\n".join(parts) + "\n</svg>\n").encode()
