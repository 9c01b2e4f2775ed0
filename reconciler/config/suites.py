"""Suites with their cases and sentinels, as the runner's checks and recorded results."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TypeVar

from reconciler.config.fleet import Case, Sentinel, Suite
from reconciler.config.models import evals as documents
from reconciler.config.positions import Document
from reconciler.config.reader import Notes, Reader
from reconciler.config.shared import Shared, home, undefined
from reconciler.findings import Place, quoted
from reconciler.source.tree import MissingPath, UnsafePath, join_path
from runner.spec import (
    ChangeCheck,
    Check,
    CommandCheck,
    FileCheck,
    LimitCheck,
    Recorded,
    ToolCheck,
)

Path = list[str | int]
T = TypeVar("T", Case, Sentinel)


def read_suite(
    reader: Reader, path: str, shared: Shared, notes: Notes, *, asked: Place
) -> Suite | None:
    """The suite at `path`; None and findings when it, a case or a sentinel is in error."""
    value, document = reader.expect(path, documents.SuiteFile, notes, asked=asked)
    if value is None:
        return None
    before = len(notes.findings)
    suite = value.suite
    cases: dict[str, Case] = {}
    for file in _files(reader, document, suite.cases, ["suite", "cases"], notes):
        case = _case(reader, file, shared, notes)
        if case is not None:
            _once(cases, case, "case", notes)
    sentinels: dict[str, Sentinel] = {}
    if suite.sentinels is not None:
        for file in _files(reader, document, suite.sentinels, ["suite", "sentinels"], notes):
            sentinel = _sentinel(reader, file, shared, notes)
            if sentinel is not None:
                _once(sentinels, sentinel, "sentinel", notes)
    if any(finding.severity == "error" for finding in notes.findings[before:]):
        return None
    return Suite(
        name=suite.name,
        path=path,
        cases=tuple(cases[key] for key in sorted(cases)),
        sentinels=tuple(sentinels[key] for key in sorted(sentinels)),
    )


def _once(found: dict[str, T], item: T, kind: str, notes: Notes) -> None:
    first = found.setdefault(item.id, item)
    if first is not item:
        notes.error(
            "duplicate-name",
            item.place,
            f"{kind} {quoted(item.id)} is defined twice (first at {first.place})",
            "rename or remove one of them",
        )


def _files(reader: Reader, document: Document, pattern: str, at: Path, notes: Notes) -> list[str]:
    """Files that a glob like `./cases/*.yaml` names; none at all is an error."""
    asked = document.at(at)
    folder, _, last = pattern.rpartition("/")
    if any(c in folder for c in "*?["):
        notes.error(
            "glob",
            asked,
            f"{quoted(pattern)} has a wildcard before its last part",
            "use wildcards in the file name only, such as ./cases/*.yaml",
        )
        return []
    base = reader.resolve(document.file, folder, notes, asked=asked)
    names = None if base is None else reader.directory(base, notes, asked=asked)
    if names is None:
        return []
    found = [f"{base}/{name}" if base else name for name in names if fnmatchcase(name, last)]
    if not found:
        notes.error(
            "no-cases",
            asked,
            f"no file matches {quoted(pattern)}",
            "a gate without evidence never passes: add one",
        )
    return found


def _case(reader: Reader, path: str, shared: Shared, notes: Notes) -> Case | None:
    value, document = reader.expect(path, documents.CaseFile, notes)
    if value is None:
        return None
    case = value.case
    asked = document.at(["case", "workspace"])
    workspace = reader.resolve(path, case.workspace, notes, asked=asked)
    oid = None
    if workspace is not None and reader.directory(workspace, notes, asked=asked) is not None:
        oid = _oid(reader, workspace)
    recorded = _recorded(reader, case, document, shared, notes)
    checks = _checks(case, document, notes)
    if workspace is None or oid is None:
        return None
    return Case(
        id=case.id,
        input=case.input,
        workspace=workspace,
        workspace_oid=oid,
        critical=case.critical,
        checks=checks,
        recorded=recorded,
        place=document.at(["case", "id"]),
    )


def _oid(reader: Reader, path: str) -> str | None:
    try:
        return str(reader.tree.oid(path))
    except (MissingPath, UnsafePath):
        return None


def _checks(case: documents.Case, document: Document, notes: Notes) -> tuple[Check, ...]:
    checks: dict[str, Check] = {}
    for index, rule in enumerate(case.grade):
        check = check_of(rule, index + 1)
        if check.id in checks:
            at: Path = ["case", "grade", index]
            notes.error(
                "duplicate-name",
                document.at(at),
                f"check {quoted(check.id)} is defined twice in this case",
                "give one of them another id",
            )
        checks[check.id] = check
    return tuple(checks.values())


def check_of(rule: documents.GradeRule, position: int) -> Check:
    """A rule as the runner's check; its id is `kind-position` unless it has one."""
    if isinstance(rule, documents.CommandRule):
        return CommandCheck(
            id=rule.id or f"command-{position}",
            command=rule.command,
            exit=rule.exit,
            protect=tuple(rule.protect),
            timeout_ms=rule.timeout or 60_000,
        )
    if isinstance(rule, documents.FileRule):
        return FileCheck(
            id=rule.id or f"file-{position}",
            path=join_path("", rule.file),
            matches=rule.matches,
            absent=rule.absent,
        )
    if isinstance(rule, documents.ChangesRule):
        return ChangeCheck(
            id=rule.id or f"changes-{position}",
            include=tuple(rule.changes.include),
            exclude=tuple(rule.changes.exclude),
            safety=rule.safety,
        )
    if isinstance(rule, documents.ToolsRule):
        return ToolCheck(
            id=rule.id or f"tools-{position}",
            include=tuple(rule.tools.include),
            exclude=tuple(rule.tools.exclude),
            safety=rule.safety,
        )
    return LimitCheck(
        id=rule.id or f"limits-{position}", max_cost=rule.max_cost, max_steps=rule.max_steps
    )


def _recorded(
    reader: Reader, case: documents.Case, document: Document, shared: Shared, notes: Notes
) -> tuple[Recorded, ...]:
    results, at = case.tools, ["case", "tools"]
    if isinstance(results, str):
        asked = document.at(at)
        path = reader.resolve(document.file, results, notes, asked=asked)
        if path is None:
            return ()
        value, document = reader.expect(path, documents.RecordedFile, notes, asked=asked)
        results, at = (value.recorded if value else []), ["recorded"]
    for index, result in enumerate(results):
        server, _, tool = result.tool.partition(".")
        known = [f"{s}.{t}" for s, found in shared.servers.items() for t in found.tools]
        if server not in shared.servers or tool not in shared.servers[server].tools:
            undefined(
                notes,
                document.at([*at, index, "tool"]),
                kind="tool",
                name=result.tool,
                known=known,
                home=home(shared, "server", "gateway/mcp-servers.yaml"),
            )
    return tuple(
        Recorded(tool=r.tool, args=r.args, result=r.result, error=r.error) for r in results
    )


def _sentinel(reader: Reader, path: str, shared: Shared, notes: Notes) -> Sentinel | None:
    value, document = reader.expect(path, documents.SentinelFile, notes)
    if value is None:
        return None
    sentinel = value.sentinel
    text = None
    if sentinel.instructions is not None:
        asked = document.at(["sentinel", "instructions"])
        file = reader.resolve(path, sentinel.instructions, notes, asked=asked)
        text = reader.text(file, notes, asked=asked) if file is not None else None
    if sentinel.model is not None and sentinel.model not in shared.model_names:
        undefined(
            notes,
            document.at(["sentinel", "model"]),
            kind="model",
            name=sentinel.model,
            known=shared.model_names,
            home=home(shared, "model", "gateway/models.yaml"),
        )
    return Sentinel(
        id=sentinel.id,
        why=sentinel.why,
        instructions=text,
        model=sentinel.model,
        place=document.at(["sentinel", "id"]),
    )
