"""The next commit of the record: which files differ from the last one, and what they tell.

Only what changed since the last mark is rendered, so a tick costs what happened and not what has
piled up. One hour of overlap makes up for clocks that disagree; a file that comes out the same is
not a change.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from gateway.database import Row, Transaction
from gateway.values import Millis, RunId, content_hash, show_usd
from reconciler.record import audit, claims, documents, ledger, render, state, views
from reconciler.record.calendar import day, day_start, month
from reconciler.record.mark import Mark
from reconciler.record.render.pages import without_time
from reconciler.source.objects import blob_id
from reconciler.source.tree import Tree

OVERLAP_MS = 3_600_000
HEARTBEAT_MS = 3_600_000
"""A record without news is written again after this long: that is how a dead reconciler shows."""
FLEET = "README.md"
TITLE = 100
"""Characters of a commit's first line."""


@dataclass(frozen=True, slots=True)
class Draft:
    """`changes` as `Mirror.write_commit` takes them. `news`: more than the time has changed.
    `mark` lacks only the commit. `claims` are durable once this, or the commit before it when
    there is no news, is in git."""

    changes: dict[str, bytes | None]
    news: bool
    due: bool
    message: str
    mark: Mark
    claims: tuple[RunId, ...]


def draft(
    tx: Transaction,
    base: Tree | None,
    last: Mark | None,
    *,
    now: Millis,
    tick: int,
    clean: bool,
    machine: str,
    everything: bool = False,
) -> Draft:
    """What the next commit on top of `base` holds. `everything` renders all there is anew."""
    old = state.read_manifest(base.read(state.MANIFEST)) if base is not None else None
    whole = everything or base is None or last is None
    since = 0 if whole or last is None else min(last.at, now) - OVERLAP_MS
    seen = 0 if whole or last is None else last.audit
    desired = {row["agent"]: content_hash({**row}) for row in tx.read("SELECT * FROM desired")}

    files = state.export(
        tx,
        now=now,
        tick=tick,
        clean=clean,
        machine=machine,
        since=0 if whole else _ledger_since(tx, since, now),
        known=None if whole or old is None else old["files"],
    )
    for path in [path for path in files if path.startswith(state.LEDGER)]:
        name = path.removeprefix(state.LEDGER).removesuffix(".json")
        files[f"costs/{name}.csv"] = ledger.csv_of(json.loads(files[path])["rows"])
    files |= audit.months(tx, after=seen)
    ended = documents.finished_runs(tx, since=since)
    for row in ended:
        files |= render.run_files(tx, row)
    for row in documents.rollouts_touched(tx, since=since):
        files |= render.rollout_files(tx, row)
    fleet = views.fleet(tx, now)
    turned = whole or last is None or day(last.at) != day(now)
    touched = set() if turned else _touched(tx, since, seen, desired, last)
    for agent in fleet.agents:
        if turned or agent.agent in touched:
            files |= render.agent_files(tx, agent, now)
    files[FLEET] = render.fleet_page(fleet, now=now, tick=tick)

    new = state.read_manifest(files[state.MANIFEST])
    changes: dict[str, bytes | None] = {
        path: body for path, body in files.items() if not _is_there(base, path, body)
    }
    for path in (old["files"] if old else {}).keys() - new["files"].keys():
        changes[path] = None
    news = (
        old is None
        or not state.same_but_for_the_time(old, new)
        or any(_is_news(base, path, body) for path, body in changes.items())
    )
    fresh = [row for row in ended if f"{documents.run_path(row)}.json" in changes]
    return Draft(
        changes=changes,
        news=news,
        due=old is None or not 0 <= now - old["written_at"] < HEARTBEAT_MS,
        message=_message(tx, fresh, seen, first=old is None, news=news),
        mark=Mark("", tick, now, audit.last_seq(tx), desired),
        claims=claims.contained(tx),
    )


def _ledger_since(tx: Transaction, since: int, now: Millis) -> int:
    """Start of the oldest month in which a call may have changed since then."""
    row = tx.one(
        "SELECT min(reserved_at) AS at FROM calls"
        " WHERE reserved_at >= :since OR settled_at >= :since OR state = 'reserved'",
        since=since,
    )
    oldest = row["at"] if row and row["at"] is not None else now
    return day_start(f"{month(min(oldest, now))}-01")


def _touched(
    tx: Transaction, since: int, seen: int, desired: dict[str, str], last: Mark | None
) -> set[str]:
    """Agents whose page may show something else than before."""
    rows = tx.read(
        "SELECT agent FROM audit WHERE seq > :seen AND agent IS NOT NULL"
        " UNION SELECT agent FROM runs WHERE purpose = 'live'"
        " AND (created_at >= :since OR finished_at >= :since OR status <> 'finished')"
        " UNION SELECT agent FROM calls WHERE reserved_at >= :since OR settled_at >= :since"
        " UNION SELECT agent FROM rollouts WHERE closed_at IS NULL"
        " UNION SELECT agent FROM holds WHERE lifted_at IS NULL"
        " UNION SELECT agent FROM stops",
        seen=seen,
        since=since,
    )
    before = last.desired if last else {}
    changed = {
        name for name in desired.keys() | before.keys() if desired.get(name) != before.get(name)
    }
    return {row["agent"] for row in rows} | changed


def _is_there(base: Tree | None, path: str, body: bytes) -> bool:
    return base is not None and base.exists(path) and base.oid(path) == blob_id(body)


def _is_news(base: Tree | None, path: str, body: bytes | None) -> bool:
    """Not when only the time moved: the manifest's stamp, the fleet page's line, a chart's axis."""
    if path == state.MANIFEST or path.endswith(".svg"):
        return False
    if path == FLEET and body is not None and base is not None and base.exists(path):
        return without_time(base.read(path)) != without_time(body)
    return True


def _message(tx: Transaction, ended: list[Row], seen: int, *, first: bool, news: bool) -> str:
    """`ci-triage: rel-… promoted; 1 run, $0.02`, and the audit log's new lines below it."""
    lines = tx.read("SELECT * FROM audit WHERE seq > :seen ORDER BY seq", seen=seen)
    newest = {line["subject"]: line["seq"] for line in lines}
    parts = [
        text
        for line in lines
        # Of what happened to one thing in between, the first line tells the last.
        if newest[line["subject"]] == line["seq"] and (text := _told(tx, line))
    ]
    if ended:
        runs = views.views_of(tx, ended)
        agents = Counter(run.agent for run in runs)
        cost = show_usd(sum(run.cost_nano for run in runs))
        who = f"{next(iter(agents))}: " if len(agents) == 1 and not parts else ""
        parts.append(f"{who}{len(runs)} run{'s' if len(runs) != 1 else ''}, {cost}")
    if not parts:
        parts = ["first record" if first else "state" if news else "heartbeat"]
    title = "; ".join(parts)
    if len(title) > TITLE:
        title = title[: TITLE - 1] + "…"
    body = [f"{line['seq']} {line['actor']} {line['action']} {line['subject']}" for line in lines]
    if len(body) > 50:
        body = [f"… {len(body) - 50} earlier lines", *body[-50:]]
    return "\n".join([title, "", *body] if body else [title]) + "\n"


def _told(tx: Transaction, line: dict[str, Any]) -> str:
    who = f"{line['agent']}: " if line["agent"] else ""
    action: str = line["action"]
    if action.startswith("rollout."):
        row = tx.one("SELECT candidate FROM rollouts WHERE rollout = :id", id=line["subject"])
        what = row["candidate"] if row else line["subject"]
        return f"{who}{what} {action.removeprefix('rollout.').replace('_', ' ')}"
    if action.startswith(("run.start", "commit.")):
        return ""
    return f"{who}{action}"
