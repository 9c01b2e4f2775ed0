"""The `state/` tree: what a fresh machine needs to go on (format interlock.state/1).

Every file is canonical JSON, one document per thing that changes on its own, so that a commit
touches what happened and nothing else. `manifest.json` lists the hash of every other file, so a
tree that was put together from two commits does not pass for one. Who may have written it is
shown by the commit's signature (record.rebuild), not in here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.database import Row, Transaction
from gateway.values import Json, Millis, canonical_json
from reconciler.record import audit, claims, documents, ledger

FORMAT = "interlock.state/1"
MANIFEST = "state/manifest.json"


class StateError(Exception):
    """The tree cannot be believed or understood; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Table:
    """How one table becomes files: one file for all rows, or a folder with a file per `key`."""

    name: str
    path: str
    order: str
    key: str | None = None
    where: str = "1 = 1"


TABLES = (
    Table("pointers", "state/pointers.json", "agent"),
    Table("rollouts", "state/rollouts", "rollout", key="rollout"),
    Table(
        "attempts",
        "state/attempts",
        "arm, case_id, attempt",
        key="rollout",
        # A closed rollout's attempts stand in its report; only an open one goes on from them.
        where="rollout IN (SELECT rollout FROM rollouts WHERE closed_at IS NULL)",
    ),
    Table("releases", "state/releases", "digest", key="digest"),
    Table("receipts", "state/receipts", "receipt", key="receipt"),
    Table("quarantine", "state/quarantine.json", "digest"),
    Table("holds", "state/holds.json", "at, hold"),
    Table("stops", "state/stops.json", "agent"),
    Table("schedules", "state/schedules.json", "agent"),
    Table("alerts", "state/alerts.json", "at, id"),
    Table("approvals", "state/approvals.json", "at, approval"),
    Table("in_force", "state/in-force.json", "scope"),
    Table("waiting", "state/waiting.json", "waiting"),
    Table("pull_comments", "state/pull-comments.json", "pull, comment"),
    Table("shown", "state/shown.json", "pull, head, subject"),
    Table("versions", "state/versions", "path, number", key="shard"),
    Table("versions_until", "state/versions-until.json", "branch"),
)
ADDED: Mapping[str, Row] = {"rollouts": {"pull": None}}
"""Columns that came later, with what they are in a tree written before."""
CLAIMS = Table("claims", "state/claims", "run", key="run")
LEDGER = "state/ledger/"
REFILLED = ("runs", "journal", "calls", "audit")
"""Tables that are filled from the reports and the ledger."""
DROPPED = ("budget_windows", "budget_basis", "tokens", "sockets", "ends")
"""Tables that must not outlive what they were about: totals are counted anew, and no token of
before a rebuild opens anything after it."""


def export(
    tx: Transaction,
    *,
    now: Millis,
    tick: int,
    clean: bool,
    machine: str,
    since: int = 0,
    known: Mapping[str, str] | None = None,
) -> dict[str, bytes]:
    """Every file of `state/`, manifest included.

    `tick` only ever grows along the branch's history; `clean` says that no run was open and
    nothing was undecided when this was written. Ledger months before the one of `since` have not
    changed: their hashes are taken from `known` (path → SHA-256) and their files are left out.
    """
    files: dict[str, bytes] = {}
    for table in TABLES:
        rows = tx.read(f"SELECT * FROM {table.name} WHERE {table.where} ORDER BY {table.order}")  # noqa: S608
        _add(files, table, rows)
    _add(files, CLAIMS, claims.exported(tx, machine=machine))
    for month, sums in ledger.months(tx, since=since).items():
        body: Json = {"format": FORMAT, "month": month, "rows": [*sums]}
        files[f"{LEDGER}{month}.json"] = canonical_json(body) + b"\n"
    hashes = {path: hashlib.sha256(body).hexdigest() for path, body in files.items()}
    for path, digest in (known or {}).items():
        if path.startswith(LEDGER):
            hashes.setdefault(path, digest)
    last = tx.one("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
    manifest: Json = {
        "format": FORMAT,
        "tick": tick,
        "written_at": now,
        "machine": machine,
        "clean": clean,
        "audit": {"seq": last["seq"], "hash": last["hash"]} if last else None,
        "files": {**hashes},
    }
    files[MANIFEST] = canonical_json(manifest) + b"\n"
    return files


def _add(files: dict[str, bytes], table: Table, rows: list[Row]) -> None:
    if table.key is None:
        files[table.path] = _document(table.name, rows)
        return
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row[table.key]), []).append(row)
    for name, group in groups.items():
        files[f"{table.path}/{name}.json"] = _document(table.name, group)


def same_but_for_the_time(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Two manifests that say the same about the state; only tick, time and machine differ."""
    return all(
        old.get(name) == new.get(name) for name in {*old, *new} - {"tick", "written_at", "machine"}
    )


def read_manifest(body: bytes) -> dict[str, Any]:
    """The manifest as a dict. StateError when it is none, or of a later format."""
    try:
        manifest = json.loads(body)
        found = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{MANIFEST} is not a manifest: {error!r}") from None
    if found != FORMAT:
        raise StateError(
            f"{MANIFEST} has the format {found!r}; this program reads {FORMAT!r}. "
            "Upgrade Interlock."
        )
    return dict(manifest)


def check(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The manifest, after every file of the tree was held against it. Raises StateError."""
    if MANIFEST not in files:
        raise StateError(f"there is no {MANIFEST}: this is not a state tree")
    manifest = read_manifest(files[MANIFEST])
    listed = manifest["files"]
    present = {path for path in files if path.startswith("state/") and path != MANIFEST}
    odd = sorted(present ^ set(listed))
    if odd:
        raise StateError(f"{odd[0]} and {MANIFEST} do not agree: the tree is not from one commit")
    for path, digest in sorted(listed.items()):
        if hashlib.sha256(files[path]).hexdigest() != digest:
            raise StateError(f"{path} is not what {MANIFEST} says: the tree was changed by hand")
    return manifest


@dataclass(frozen=True, slots=True)
class Restored:
    """What a tree held: its manifest, how many live runs, and what did not fit together."""

    manifest: dict[str, Any]
    runs: int
    notes: tuple[str, ...]


def wanted(path: str) -> bool:
    """Whether `restore` reads this file of the branch."""
    if path.startswith("state/"):
        return True
    if path.startswith("audit/"):
        return path.endswith(".jsonl")
    run = path.startswith("agents/") and path.split("/")[2:3] == ["runs"]
    return path.endswith(".json") and (run or path.startswith("rollouts/"))


def restore(tx: Transaction, files: Mapping[str, bytes]) -> Restored:
    """Fill the tables from a branch's files (those that are `wanted`). Raises StateError.

    Whatever is in these tables is replaced: the tree is the authority.
    """
    manifest = check(files)
    for name in (*(table.name for table in (*TABLES, CLAIMS)), *REFILLED, *DROPPED):
        tx.execute(f"DELETE FROM {name}")  # noqa: S608 - names from the constants above
    for table in (*TABLES, CLAIMS):
        columns = tx.columns(table.name)
        for path in sorted(files):
            single = table.key is None and path == table.path
            grouped = table.key is not None and path.startswith(table.path + "/")
            if not (single or grouped):
                continue
            for row in _rows(path, table.name, files[path]):
                row = {**ADDED.get(table.name, {}), **row}
                if set(row) != columns:
                    raise StateError(
                        f"{path}: columns {sorted(set(row) ^ columns)} are not those of "
                        f"{table.name}; it was written by another version of Interlock"
                    )
                names = sorted(row)
                tx.execute(
                    f"INSERT INTO {table.name} ({', '.join(names)})"  # noqa: S608
                    f" VALUES ({', '.join(':' + name for name in names)})",
                    **row,
                )
    costs: dict[str, int] = {}
    try:
        for path in sorted(files):
            if path.startswith("rollouts/"):
                documents.restore_attempts(tx, path, files[path])
            elif path.startswith("agents/"):
                run, cost = documents.restore_run(tx, path, files[path])
                costs[run] = cost
    except documents.ReportError as error:
        raise StateError(str(error)) from None
    notes = _refill(tx, files, costs)
    _restore_audit(tx, files, manifest)
    return Restored(manifest, len(costs), notes)


def _refill(
    tx: Transaction, files: Mapping[str, bytes], costs: Mapping[str, int]
) -> tuple[str, ...]:
    rows: list[dict[str, Any]] = []
    for path in sorted(files):
        if path.startswith(LEDGER):
            rows += _load(path, files[path])["rows"]
    sums = ledger.sums_by_run(rows)
    # The ledger is the truth for money. Where a run's report was written before its last call
    # was settled, the run's exact rows give way to the ledger's sum.
    odd = sorted(run for run, cost in costs.items() if sums.get(run, 0) != cost)
    for run in odd:
        tx.execute("DELETE FROM calls WHERE run = :run", run=run)
    ledger.refill(tx, rows, skip=frozenset(costs) - frozenset(odd))
    return tuple(f"{run}: its report and the ledger differ; the ledger counts" for run in odd)


def _restore_audit(
    tx: Transaction, files: Mapping[str, bytes], manifest: Mapping[str, Any]
) -> None:
    lines: list[Row] = []
    for path in sorted(files):
        if path.startswith("audit/"):
            try:
                lines += [json.loads(line) for line in files[path].splitlines()]
            except ValueError as error:
                raise StateError(f"{path} is not JSON by lines: {error}") from None
    columns = tx.columns("audit")
    wrong = next((line for line in lines if set(line) != columns), None)
    if wrong is not None:
        raise StateError(f"audit/: the line {str(wrong)[:80]} is not one of the audit log")
    lines.sort(key=lambda line: int(line["seq"]))
    broken = audit.first_break(lines)
    if broken is not None:
        raise StateError(f"audit/: the chain breaks at line {broken}: it was changed afterwards")
    head = {"seq": lines[-1]["seq"], "hash": lines[-1]["hash"]} if lines else None
    if head != manifest["audit"]:
        raise StateError(f"audit/ ends at {head}, {MANIFEST} says {manifest['audit']}")
    for line in lines:
        audit.insert(tx, line)


def _document(table: str, rows: list[Row]) -> bytes:
    body: Json = {"format": FORMAT, "table": table, "rows": [dict(row) for row in rows]}
    return canonical_json(body) + b"\n"


def _rows(path: str, table: str, body: bytes) -> list[Row]:
    document = _load(path, body)
    if document.get("table") != table:
        raise StateError(f"{path} is not a document of table {table}")
    return [dict(row) for row in document["rows"]]


def _load(path: str, body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
        found = document["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path} is not a state document: {error!r}") from None
    if found != FORMAT:
        raise StateError(
            f"{path} has the format {found!r}; this program reads {FORMAT!r}. Upgrade Interlock."
        )
    return dict(document)
