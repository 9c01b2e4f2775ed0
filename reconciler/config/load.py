"""A tree in, a `Fleet` and findings out: the way into the config repo's language.

Two rules shape it. An error in a file that all agents share refuses the whole commit, since
nobody can tell what it was meant to say for whom (fail closed). An error in one agent's files
breaks that agent only: it keeps the release it has, and the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.values import AgentName, TeamName
from reconciler.config import fleet as values
from reconciler.config.agents import resolve_agent
from reconciler.config.grants import overlap
from reconciler.config.models.agent import AgentFile
from reconciler.config.models.fields import NAME
from reconciler.config.positions import Document
from reconciler.config.reader import Memo, Notes, Reader
from reconciler.config.rollouts import rollout_policy
from reconciler.config.shapes import kind_of
from reconciler.config.shared import Shared, read_shared
from reconciler.config.skills import read_skill, skill_names
from reconciler.findings import Finding, Place, Severity, did_you_mean, quoted, tidy
from reconciler.source.tree import Kind, Tree, UnsafePath

AGENTS = "agents"


def load(tree: Tree, *, memo: Memo | None = None) -> values.Loaded:
    """Read, resolve and check everything a commit declares.

    `memo` keeps parsed documents between loads, by path and blob OID. Never raises for what is
    in the tree: errors of the repository are findings, with file, line and column.
    """
    reader = Reader(tree, memo or Memo())
    common = Notes()
    shared = read_shared(reader, common)
    drafts = _read_agents(reader, shared, common)
    _refuse_twins(drafts)
    _refuse_shared_claims(drafts)
    skills = Notes()
    for name in skill_names(reader):
        read_skill(reader, name, skills)
    everything = [*common.findings, *skills.findings]
    blocked = tuple(f for f in common.findings if f.severity is Severity.ERROR)
    broken: dict[AgentName, tuple[Finding, ...]] = {}
    agents: dict[AgentName, values.AgentConfig] = {}
    for draft in drafts:
        everything += draft.notes.findings
        if draft.notes.failed or draft.config is None:
            known = broken.get(draft.name, blocked)
            broken[draft.name] = tidy((*known, *draft.notes.findings))
        else:
            agents[draft.name] = draft.config
    for name in broken:
        agents.pop(name, None)
    fleet = None if blocked else _fleet(shared, agents)
    return values.Loaded(fleet, tidy(everything), dict(sorted(broken.items())))


class _Draft:
    """One agent's file on its way to a config, with its own findings."""

    def __init__(self, name: AgentName, document: Document) -> None:
        self.name = name
        self.document = document
        self.notes = Notes()
        self.config: values.AgentConfig | None = None


def _read_agents(reader: Reader, shared: Shared, common: Notes) -> list[_Draft]:
    drafts: list[_Draft] = []
    try:
        folders = reader.names(AGENTS, Kind.TREE, Kind.LINK)
    except UnsafePath as unsafe:
        common.error("unsafe-path", Place(AGENTS), str(unsafe))
        return drafts
    for folder in folders:
        try:
            names = reader.names(f"{AGENTS}/{folder}", Kind.BLOB, Kind.LINK)
        except UnsafePath as unsafe:
            # A folder that cannot be listed is still an agent that was meant to be there.
            draft = _Draft(AgentName(folder), Document(f"{AGENTS}/{folder}", None))
            draft.notes.error("unsafe-path", Place(f"{AGENTS}/{folder}"), str(unsafe))
            drafts.append(draft)
            continue
        drafts += [
            _draft(reader, f"{AGENTS}/{folder}/{name}", folder, shared, common)
            for name in names
            if name.endswith((".yaml", ".yml")) and not name.startswith(".")
        ]
    return drafts


def _draft(reader: Reader, path: str, folder: str, shared: Shared, common: Notes) -> _Draft:
    document = reader.document(path)
    draft = _Draft(_name(document, folder), document)
    if document.root is not None and kind_of(document) is not AgentFile:
        keys = list(document.data) if isinstance(document.data, dict) else []
        key = keys[0] if keys else ""
        draft.notes.error(
            "unknown-kind",
            document.at([key], key=True),
            f"{quoted(key)} does not belong here" if keys else "the file says nothing",
            did_you_mean(key, list(AgentFile.model_fields)) or "known here: agent",
        )
        return draft
    value = reader.shaped(document, AgentFile, draft.notes)
    # With shared files in error references mean nothing; reporting them would hide the cause.
    if value is not None and not common.failed:
        draft.config = resolve_agent(value, document, reader, shared, draft.notes)
    return draft


def _name(document: Document, folder: str) -> AgentName:
    """The agent's name, or its folder's while the file cannot be understood."""
    data = document.data
    agent = data.get("agent") if isinstance(data, dict) else None
    name = agent.get("name") if isinstance(agent, dict) else None
    return AgentName(name if isinstance(name, str) and NAME.fullmatch(name) else folder)


def _refuse_twins(drafts: list[_Draft]) -> None:
    """Two agents of one name: neither can be trusted to be the one that is live."""
    first: dict[AgentName, _Draft] = {}
    for draft in drafts:
        other = first.setdefault(draft.name, draft)
        if other is draft:
            continue
        for one, twin in ((draft, other), (other, draft)):
            place = one.document.at(["agent", "name"])
            twin_place = twin.document.at(["agent", "name"])
            one.notes.error(
                "duplicate-name",
                place,
                f"agent {quoted(draft.name)} is defined twice (also at {twin_place})",
                "rename one of them",
            )


def _refuse_shared_claims(drafts: list[_Draft]) -> None:
    """An artifact has one owner. Both are told, and both wait until it is settled."""
    claims = [(draft, claim) for draft in drafts if draft.config for claim in draft.config.owns]
    for position, (draft, claim) in enumerate(claims):
        for other, twin in claims[:position]:
            if (
                other is draft
                or claim.realm != twin.realm
                or not overlap(claim.pattern, twin.pattern)
            ):
                continue
            for one, mine, two, theirs in (
                (draft, claim, other, twin),
                (other, twin, draft, claim),
            ):
                one.notes.error(
                    "claimed-twice",
                    mine.place,
                    f"{quoted(mine.pattern)} is also claimed by agent {quoted(two.name)}"
                    f" (at {theirs.place})",
                    "let one of them own it",
                )


def _fleet(shared: Shared, agents: Mapping[AgentName, values.AgentConfig]) -> values.Fleet | None:
    fleet, document = shared.fleet, shared.fleet_document
    if fleet is None or document is None:
        return None
    return values.Fleet(
        name=fleet.name,
        branch=fleet.branch,
        reports_branch=fleet.reports.branch,
        signers=tuple(fleet.reports.signers),
        teams={
            TeamName(name): values.TeamConfig(TeamName(name), tuple(team.members), tuple(team.owns))
            for name, team in sorted(shared.teams.items())
        },
        platform=shared.platform,
        images=dict(shared.lock.images),
        rollouts={
            name: rollout_policy(name, policy, document, ["fleet", "rollouts", name], Notes())
            for name, policy in fleet.rollouts.items()
        },
        agents=dict(sorted(agents.items())),
    )
