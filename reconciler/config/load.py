"""A tree in, a `Fleet` and findings out: the way into the config repo's language.

Two rules shape it. An error in a file that all agents share refuses the whole commit, since
nobody can tell what it was meant to say for whom (fail closed). An error in one agent's files
breaks that agent only: it keeps the release it has, and the others go on.

A load can go on from an earlier one, of whatever commit. What was made then is used again unless
a change reaches what it was made from, so that the cost follows the change and not the fleet; the
outcome is the one that a load from nothing would have. An agent that is used again is the very
same object, by which those who compile and compare know that nothing is to be done.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from gateway.values import AgentName
from reconciler.config import fleet as values
from reconciler.config.closure import (
    Answers,
    AskedHistory,
    SharedView,
    Stale,
    Users,
    changed_answers,
    changed_values,
)
from reconciler.config.collisions import Collisions, updated
from reconciler.config.drafts import AGENTS, Draft, Folder, read_folder
from reconciler.config.outcome import Outcome, outcome_of
from reconciler.config.reader import Memo, Notes, Once, Reader
from reconciler.config.shared import Shared, read_shared
from reconciler.config.skills import FOLDER as SKILLS
from reconciler.config.skills import read_skill, skill_names
from reconciler.config.tracing import Need, Trace
from reconciler.config.versions import NO_HISTORY, History
from reconciler.findings import Finding, Place, Severity, tidy
from reconciler.source.paths import split_path
from reconciler.source.tree import Kind, LinkedTree, UnsafePath, changed_paths
from reconciler.source.watched import Touched, Watched


@dataclass(frozen=True, slots=True)
class _Part:
    """Something read for all agents: what came of it, what was wrong, what it was made from."""

    value: object
    findings: tuple[Finding, ...]
    needs: frozenset[Need]


@dataclass(frozen=True, slots=True)
class _Memory:
    """What a load leaves for the next one."""

    tree: LinkedTree
    memo: Memo
    answers: Answers
    shared: _Part
    basis: Shared | None
    """The shared files that agents were resolved against; older than `shared` while that is in
    error, so that putting it right costs what was changed."""
    listing: _Part
    skills: _Part
    kept: dict[Need, Once]
    folders: Mapping[str, Folder]
    users: Users
    unresolved: frozenset[str]
    """Folders that were read while the shared files were in error."""
    telling: frozenset[str]
    """Folders that something was found in."""
    collisions: Collisions
    outcome: Outcome


def load(
    tree: LinkedTree,
    *,
    history: History = NO_HISTORY,
    previous: values.Loaded | None = None,
) -> values.Loaded:
    """Read, resolve and check everything a commit declares.

    `previous` is an earlier outcome, of any tree: what the difference does not reach is used
    again. Never raises for what is in the tree: errors of the repository are findings, with file,
    line and column.
    """
    before = previous.memory if previous is not None else None
    if not isinstance(before, _Memory):
        with _undisturbed():
            return _Loading(tree, history, Memo(), None, None).loaded(None)
    asked = changed_answers(before.answers, history)
    if not asked and tree.oid("") == before.tree.oid(""):
        assert previous is not None
        return previous
    try:
        paths = changed_paths(before.tree, tree)
        for path in paths:
            split_path(path)
        stale = Stale(Touched(before.tree, tree, paths))
    except UnsafePath:  # a name that cannot be listed: nothing can be told apart
        with _undisturbed():
            return _Loading(tree, history, before.memo, None, None).loaded(None)
    stale.add(asked)
    return _Loading(tree, history, before.memo, before, stale).loaded(previous)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Build a fleet without the garbage collector, and let it leave the fleet alone afterwards.

    It would go through every object there is again and again, to find that all of them are kept:
    a third of the time of a large load, and a pause of a second somewhere later.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.enable()


class _Loading:
    """One load. `before` and `stale` are what it goes on from, or None."""

    def __init__(
        self,
        tree: LinkedTree,
        history: History,
        memo: Memo,
        before: _Memory | None,
        stale: Stale | None,
    ) -> None:
        trace = Trace()
        self.tree = tree
        self.before = before
        self.stale = stale
        self.gone: set[Need] = set()
        """Results for several agents that do not hold, or may not."""
        self.again: set[str] = set()
        """Folders that are read again, or are gone."""
        self.users = before.users if before is not None else Users()
        self.answers: Answers = dict(before.answers) if before is not None else {}
        self.reader = Reader(
            Watched(tree, trace.note),
            memo,
            AskedHistory(history, trace.note, self.answers),
            trace=trace,
            kept=self._still_good(),
        )

    def _still_good(self) -> dict[Need, Once]:
        """Results for several agents that hold; one made from one that does not, does not."""
        if self.before is None or self.stale is None:
            return {}
        kept = dict(self.before.kept)
        found = self.stale.among(kept)
        while found:
            self.gone |= found
            for need in found:
                del kept[need]
            found = {need for need, once in kept.items() if not self.gone.isdisjoint(once.needs)}
        return kept

    def loaded(self, previous: values.Loaded | None) -> values.Loaded:
        """The outcome. `previous` is the one that `before` is of."""
        before = self.before
        shared = self._part(before.shared if before else None, self._read_shared)
        listing = self._part(before.listing if before else None, self._list_agents)
        skills = self._part(None if self.gone or not before else before.skills, self._read_skills)
        assert isinstance(shared.value, Shared)
        blocked = tidy(
            f for f in (*shared.findings, *listing.findings) if f.severity is Severity.ERROR
        )
        self._settle(None if blocked else shared.value)
        folders = self._folders(listing, None if blocked else shared.value)
        gone, come = _exchanged(before.folders if before else {}, folders, self.again)
        collisions = updated(
            before.collisions if before else Collisions(),
            {draft.holder for draft in gone},
            {draft.holder for draft in come},
        )
        outcome = outcome_of(
            folders,
            collisions,
            blocked,
            before=before.outcome if before else None,
            changed=(*gone, *come),
        )
        told = self._following(before.telling if before else frozenset(), folders, _tells)
        fleet = None
        if not blocked and previous is not None and previous.fleet and self._same(shared):
            fleet = replace(previous.fleet, agents=outcome.agents)
        elif not blocked:
            fleet = _fleet(shared.value, outcome.agents)
        memory = _Memory(
            tree=self.tree,
            memo=self.reader.memo,
            answers=self.answers,
            shared=shared,
            basis=(before.basis if before else None) if blocked else shared.value,
            listing=listing,
            skills=skills,
            kept=self.reader.kept,
            folders=folders,
            users=self.users,
            unresolved=self._following(
                before.unresolved if before else frozenset(), folders, lambda f: not f.resolved
            ),
            telling=told,
            collisions=collisions,
            outcome=outcome,
        )
        parts = (*shared.findings, *listing.findings, *skills.findings)
        return values.Loaded(
            fleet,
            outcome.broken,
            lambda: (*parts, *outcome.findings(folders[name] for name in told)),
            memory,
            since=None
            if previous is None or outcome.moved is None
            else (previous.mark, outcome.moved),
        )

    def _following(
        self, before: frozenset[str], folders: Mapping[str, Folder], test: Callable[[Folder], bool]
    ) -> frozenset[str]:
        """The folders of which something holds, when it did of these and some were read again."""
        now = {name for name in self.again if name in folders and test(folders[name])}
        return before if not before & self.again and not now else (before - self.again) | now

    def _same(self, shared: _Part) -> bool:
        return self.before is not None and self.before.shared is shared

    def _part(self, before: _Part | None, make: Callable[[Notes], object]) -> _Part:
        if before is not None and self.stale is not None and not self.stale.any(before.needs):
            return before
        notes = Notes()
        with self.reader.trace.of() as needs:
            value = make(notes)
        return _Part(value, tuple(notes.findings), frozenset(needs))

    def _read_shared(self, notes: Notes) -> Shared:
        return read_shared(self.reader, notes)

    def _list_agents(self, notes: Notes) -> tuple[str, ...]:
        try:
            return tuple(self.reader.names(AGENTS, Kind.TREE, Kind.LINK))
        except UnsafePath as unsafe:
            notes.error("unsafe-path", Place(AGENTS), str(unsafe))
            return ()

    def _read_skills(self, notes: Notes) -> None:
        try:
            self.reader.names(SKILLS)
        except UnsafePath as unsafe:
            notes.error("unsafe-path", Place(SKILLS), str(unsafe), "rename it")
        for name in skill_names(self.reader):
            read_skill(self.reader, name, notes)

    def _settle(self, shared: Shared | None) -> None:
        """Find out which shared values and results are others than they were."""
        before, stale, kept = self.before, self.stale, self.reader.kept
        if before is None or stale is None:
            return
        for need in self.gone:
            old, new = before.kept[need], kept.get(need)
            if new is None or (old.value, old.findings) != (new.value, new.findings):
                stale.add([need])
            else:  # the very same object: others know it by that
                kept[need] = replace(new, value=old.value)
        if shared is not None and before.basis is not None:
            stale.add(changed_values(before.basis, shared))

    def _folders(self, listing: _Part, shared: Shared | None) -> dict[str, Folder]:
        before, stale = self.before, self.stale
        view = None if shared is None else SharedView(shared, self.reader.trace.note)
        names = listing.value
        assert isinstance(names, tuple)
        if before is None or stale is None:
            self.again = set(names)
            return {name: self._read(name, view) for name in names}
        again = stale.among_users(before.folders, self.users) | stale.touched.below(AGENTS)
        if shared is not None:
            again |= before.unresolved
        found = dict(before.folders)
        if listing is not before.listing:
            again |= set(names) ^ found.keys()
            found = {name: found.get(name, _NOTHING) for name in names}
        self.again = again
        for name in again & found.keys():
            folder = self._read(name, view)
            old = before.folders.get(name)
            found[name] = folder if old is None else _same_objects(folder, old)
        return found

    def _read(self, name: str, shared: Shared | None) -> Folder:
        folder = read_folder(self.reader, name, shared)
        self.users.note(name, folder.needs)
        return folder


def _tells(folder: Folder) -> bool:
    return any(draft.findings for draft in folder.drafts)


_NOTHING = Folder((), frozenset(), False)


def _same_objects(folder: Folder, old: Folder) -> Folder:
    """The folder, with the very configs it had where they say the same."""
    known = {draft.path: draft for draft in old.drafts}
    drafts = []
    for draft in folder.drafts:
        then = known.get(draft.path)
        if then is not None and draft.config is not None and draft.config == then.config:
            draft = replace(draft, config=then.config)
        drafts.append(draft)
    return replace(folder, drafts=tuple(drafts))


def _exchanged(
    old: Mapping[str, Folder], new: Mapping[str, Folder], again: Iterable[str]
) -> tuple[list[Draft], list[Draft]]:
    """Drafts that went and that came, in the folders that were read again or are gone."""
    gone: list[Draft] = []
    come: list[Draft] = []
    for name in again:
        gone += old[name].drafts if name in old else ()
        come += new[name].drafts if name in new else ()
    return gone, come


def _fleet(shared: Shared, agents: Mapping[AgentName, values.AgentConfig]) -> values.Fleet | None:
    fleet = shared.fleet
    if fleet is None:
        return None
    return values.Fleet(
        name=fleet.name,
        branch=fleet.branch,
        reports_branch=fleet.reports.branch,
        signers=tuple(fleet.reports.signers),
        teams=shared.team_configs(),
        platform=shared.platform,
        images=dict(shared.lock.images),
        rollouts=dict(shared.rollouts),
        agents=dict(sorted(agents.items())),
        owners=shared.owner_rules,
        forge=fleet.forge.kind,
        defaults=shared.fleet_layer.values,
        principals=dict(sorted(shared.principals.items())),
        places=dict(shared.places),
    )
