"""Making files of a config repo: a new repository, loops and skills, and what is brought over.

Nothing is written before the result was loaded as a commit would be: what these operations leave
behind is valid, or they leave nothing behind and say why.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.values import AgentName
from reconciler.config import Loaded, scaffold
from reconciler.config.load import load
from reconciler.config.models.fields import NAME
from reconciler.config.models.triggers import Trigger
from reconciler.config.scaffold import Draft
from reconciler.config.schema import kinds, schema
from reconciler.config.versions import History
from reconciler.findings import Finding, Severity, did_you_mean, printable, quoted, render
from reconciler.operations.outcome import Refused
from reconciler.operations.repository import read
from reconciler.source.errors import SigningFailed
from reconciler.source.overlay import OverlayTree
from reconciler.source.signing import generate_key, public_key
from reconciler.source.tree import DirectoryTree, Kind, MissingPath, UnsafePath

SIGNING_KEY = "signing-key"
"""File of a new repository's signing key; git-ignored."""
MAX_COST = "0.50"
"""Dollars a run of a new loop where neither the fleet nor a budget limits it."""


class WrongUsage(ValueError):
    """What was asked for cannot be meant; the text says what can. Exit code 2."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was made: `root` of the repository, its new files, and what to do next."""

    root: Path
    files: tuple[str, ...]
    text: str
    notes: tuple[str, ...] = ()
    """What the person has to know or decide, one line each."""
    next: tuple[str, ...] = ()
    """Commands, in order."""


# ------------------------------------------------------------------------------------------- init


def initialize(
    directory: Path,
    *,
    fleet: str | None,
    team: str,
    member: str,
    images: Mapping[str, str] | None = None,
) -> Written:
    """Write the starter repository into `directory`, which is made when it is not there.

    `images` are digests of sandbox images of this machine, for interlock.lock. Files that are
    there already stay; Refused when one of ours would have to replace one.
    """
    name = checked_name("fleet", fleet or slug(directory.resolve().name) or "fleet")
    owner = checked_name("team", team)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}", member):
        member = "you"
    if directory.exists() and not directory.is_dir():
        raise WrongUsage(f"{directory} is a file")

    def starter(signer: str | None) -> dict[str, bytes]:
        made = scaffold.starter(
            fleet=name, team=owner, member=member, images=images or {}, signer=signer
        )
        if (directory / "README.md").exists():
            del made["README.md"]
        return made

    _refuse_collisions(directory, [*starter(None), SIGNING_KEY, f"{SIGNING_KEY}.pub"])
    notes = []
    if (directory / "README.md").exists():
        notes.append("README.md stays as it is")
    if not images:
        notes.append("interlock.lock lacks the sandbox image: it is not on this machine yet")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        signer = public_key(generate_key(directory / SIGNING_KEY).key_path)
    except OSError as error:
        raise Refused(f"{directory} cannot be written: {error.strerror or error}") from None
    except SigningFailed as failed:
        signer = None
        notes.append(f"no signing key was made: {failed}")
    files = starter(signer)
    write_files(directory, files)
    return Written(
        directory,
        tuple(sorted([*files, SIGNING_KEY] if signer else files)),
        f"fleet {name} in {directory}: one loop, one skill, an offline model",
        notes=tuple(notes),
        next=_first_commands(directory, locked=bool(images)),
    )


def _first_commands(directory: Path, *, locked: bool) -> tuple[str, ...]:
    here = "" if directory.resolve() == Path.cwd() else f"cd {_shell(str(directory))} && "
    lock = "" if locked else "interlock doctor && interlock lock && "
    git = "" if (directory / ".git").exists() else "git init -qb main && "
    reconcile = "interlock reconcile --once --state .interlock"
    return (
        f'{here}{lock}{git}git add -A && git commit -qm "A fleet"',
        f"export INTERLOCK_SIGNING_KEY={SIGNING_KEY} && {reconcile} --repo .",
        f"interlock run {scaffold.FIRST_LOOP} --state .interlock && {reconcile}",
    )


def _shell(text: str) -> str:
    return text if re.fullmatch(r"[\w./@%+=:,-]+", text) else "'" + text.replace("'", "'\\''") + "'"


# -------------------------------------------------------------------------------------------- new


def new_agent(
    directory: Path,
    name: str,
    *,
    team: str | None = None,
    model: str | None = None,
    schedule: str | None = None,
    timezone: str = "UTC",
) -> Written:
    """A loop that validates: its agent.yaml and instructions to fill in."""
    checked_name("agent", name)
    repository = open_repository(directory)
    _checked_trigger(schedule, timezone)
    draft = Draft(
        name,
        team=repository.team(team),
        model=repository.model(model),
        schedule=schedule,
        timezone=timezone,
    )
    files, _ = repository.fitted(draft)
    write_files(repository.root, files)
    return Written(
        repository.root,
        tuple(sorted(files)),
        f"loop {name}" + (f", owned by {draft.team}" if draft.team else ""),
        notes=() if draft.team else ("no team owns it: add one to teams.yaml, then `team:` here",),
        next=(
            f"edit {repository.shown(f'agents/{name}/{name}.md')}      # what it is to do",
            f"interlock validate {repository.shown('')}".rstrip(),
        ),
    )


def new_skill(directory: Path, name: str) -> Written:
    """A skill that validates: its SKILL.md to fill in."""
    checked_name("skill", name)
    repository = open_repository(directory)
    files = scaffold.skill_files(name)
    if wrong := repository.wrong_with(files):
        raise Refused(f"this would not be valid:\n{render(wrong)}")
    write_files(repository.root, files)
    path = f"skills/{name}/SKILL.md"
    return Written(
        repository.root,
        tuple(files),
        f"skill {name}",
        next=(
            f"edit {repository.shown(path)}      # what it teaches, and when to use it",
            f"add {name} to `skills:` of the loops that need it",
            f"interlock validate {repository.shown('')}".rstrip(),
        ),
    )


# --------------------------------------------------------------------------------- the repository


@dataclass(frozen=True, slots=True)
class Repository:
    """A work directory with a fleet in it, as it is now."""

    root: Path
    asked: Path
    tree: DirectoryTree
    loaded: Loaded
    history: History

    def team(self, asked: str | None) -> str | None:
        """The owner of something new: the one asked for, else the only one there is."""
        assert self.loaded.fleet is not None
        teams = [str(name) for name in self.loaded.fleet.teams]
        if asked is None and len(teams) > 1:
            raise WrongUsage(f"say which team owns it: --team {'|'.join(teams[:12])}")
        return _one_of("team", asked, teams, "teams.yaml") or (teams[0] if teams else None)

    def model(self, asked: str | None) -> str | None:
        """The model asked for; None for the fleet's default."""
        return _one_of("model", asked, self.models, "gateway/models.yaml")

    @property
    def models(self) -> list[str]:
        """Names a loop may use, virtual ones first: those are meant for loops."""
        assert self.loaded.fleet is not None
        platform = self.loaded.fleet.platform
        return [*platform.virtual_models, *platform.models]

    def shown(self, path: str) -> str:
        """A path of the repository as one would type it where one is."""
        root = self.asked if self.asked.resolve() == self.root.resolve() else self.root
        return str(root / path) if str(root) != "." else path

    def fitted(
        self, draft: Draft, *, instructions: str = "", beside: Mapping[str, bytes] | None = None
    ) -> tuple[dict[str, bytes], Draft]:
        """The files of a draft, with what this fleet does not let a loop inherit written out."""
        assert self.loaded.fleet is not None
        ungated = [name for name, each in self.loaded.fleet.rollouts.items() if each.gate is None]
        for _ in range(4):
            files = scaffold.agent_files(draft, instructions=instructions)
            loaded = self._with({**(beside or {}), **files})
            wrong = loaded.broken.get(AgentName(draft.name), ())
            kinds = {f.id for f in wrong if f.severity is Severity.ERROR}
            if not kinds:
                return files, draft
            if "no-money-limit" in kinds and draft.max_cost is None:
                draft = replace(draft, max_cost=MAX_COST)
            elif kinds & {"no-rollout", "no-evals"} and draft.rollout is None:
                draft = replace(draft, rollout=ungated[0] if ungated else "")
            elif "no-model" in kinds:
                names = "|".join(self.models[:12]) or "NAME, and define it in gateway/models.yaml"
                raise WrongUsage(f"the fleet has no default model: say --model {names}")
            else:
                raise Refused(f"{draft.name} would not be valid:\n{render(wrong)}")
        raise Refused(f"{draft.name} would not be valid")

    def wrong_with(self, files: Mapping[str, bytes]) -> tuple[Finding, ...]:
        """The errors that these files would be in."""
        found = self._with(files).findings
        return tuple(f for f in found if f.severity is Severity.ERROR and f.file in files)

    def has(self, path: str) -> bool:
        """Whether anything is at a path of the repository."""
        try:
            return self.tree.exists(path)
        except UnsafePath:
            return True

    def skills(self) -> frozenset[str]:
        """Names of the folders in skills/."""
        try:
            entries = self.tree.entries("skills")
        except (MissingPath, UnsafePath):
            return frozenset()
        return frozenset(entry.name for entry in entries if entry.kind is not Kind.BLOB)

    def _with(self, files: Mapping[str, bytes]) -> Loaded:
        return load(OverlayTree(self.tree, files), history=self.history, previous=self.loaded)


def open_repository(directory: Path) -> Repository:
    """The repository that `directory` is in. Refused where there is none, or it is in error."""
    root = _root(directory)
    if root is None:
        raise Refused(
            f"there is no fleet in {directory} or above it; start one with `interlock init DIR`"
        )
    opened = read(root)
    loaded = opened.loaded
    if loaded.fleet is None:
        first: Iterable[Finding] = [f for f in loaded.findings if f.severity is Severity.ERROR][:5]
        raise Refused(f"the fleet in {root} is in error, so nothing is added:\n{render(first)}")
    return Repository(root, directory, opened.tree, loaded, opened.history)


def _root(directory: Path) -> Path | None:
    here = directory.resolve()
    for folder in (here, *here.parents):
        named = sorted(folder.glob("*.yaml")) + sorted(folder.glob("*.yml"))
        if any(_declares_fleet(path) for path in named):
            return directory if folder == here else folder
        if (folder / ".git").exists():
            return None
    return None


def _declares_fleet(path: Path) -> bool:
    try:
        return bool(re.search(r"^fleet:", path.read_text(encoding="utf-8"), re.MULTILINE))
    except (OSError, UnicodeDecodeError):
        return False


def _refuse_collisions(root: Path, paths: Iterable[str]) -> None:
    taken = scaffold.taken(root, paths)
    if taken:
        shown = ", ".join(printable(path) for path in taken[:6])
        more = f" and {len(taken) - 6} more" if len(taken) > 6 else ""
        verb = "exists" if len(taken) == 1 else "exist"
        raise Refused(f"nothing is written over: {shown}{more} {verb} in {root} already")


def write_files(
    root: Path, files: Mapping[str, bytes], *, executable: frozenset[str] = frozenset()
) -> None:
    """Write new files, all or none. Refused when one is there already, or writing fails."""
    _refuse_collisions(root, files)
    try:
        scaffold.write_new(root, files, executable=executable)
    except OSError as error:
        raise Refused(f"{root} cannot be written: {error.strerror or error}") from None


# ------------------------------------------------------------------------------------------ checks


def checked_name(kind: str, name: str) -> str:
    """The name, if it is one. WrongUsage suggests the nearest."""
    if NAME.fullmatch(name):
        return name
    better = slug(name)
    hint = f"; how about {better}?" if better else ""
    article = "an" if kind == "agent" else "a"
    raise WrongUsage(
        f"{quoted(name)} is not a name for {article} {kind}: use lower-case letters, digits and"
        f" hyphens, at most 64 characters{hint}"
    )


def slug(text: str) -> str:
    """The name nearest to a text: `Überprüfer 2` is `uberprufer-2`; `""` when nothing is left."""
    bare = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", bare).lower())
    return plain.strip("-")[:64].rstrip("-")


def _one_of(kind: str, asked: str | None, known: list[str], home: str) -> str | None:
    if asked is None or asked in known:
        return asked
    fix = did_you_mean(asked, known) or (f"defined: {', '.join(known[:12])}" if known else "")
    raise WrongUsage(f"{kind} {quoted(asked)} is not defined in {home}; {fix}".rstrip("; "))


def _checked_trigger(schedule: str | None, timezone: str) -> None:
    if schedule is None:
        return
    try:
        Trigger.model_validate({"schedule": schedule, "timezone": timezone})
    except ValueError as error:
        told = [str(each["msg"]).removeprefix("Value error, ") for each in error.errors()]  # type: ignore[attr-defined]
        raise WrongUsage(f"--schedule: {told[0]}") from None


# ------------------------------------------------------------------------------------------ schema


def document_kinds() -> dict[str, str]:
    """Every kind of document → the file it is in, in reading order."""
    return {name: file for name, (file, _) in kinds().items()}


def document_schema(kind: str | None) -> dict[str, object]:
    """JSON Schema (2020-12) of one kind, or of every YAML document. KeyError if unknown."""
    return schema(kind)
