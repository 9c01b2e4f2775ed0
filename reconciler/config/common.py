"""What all agents share, once it is read: the shared files' values by name.

Named things keep where they are named, so that a reference to nothing can say where to look.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from gateway import policy as gateway
from gateway.policy.rules import Cache, Guardrail, RateLimit
from gateway.values import AgentName, TeamName
from reconciler.config.fleet import OwnerRule, PrincipalConfig, RolloutPolicy, TeamConfig
from reconciler.config.inheritance import Layer, layer
from reconciler.config.models import fleet as documents
from reconciler.config.models.principals import PrincipalsFile
from reconciler.config.positions import Document
from reconciler.config.reader import Notes
from reconciler.findings import Place, did_you_mean, printable, quoted

LOCK = "interlock.lock"


@dataclass
class Shared:
    """What was read. Named things keep where they are named."""

    fleet: documents.Fleet | None = None
    fleet_document: Document | None = None
    lock: documents.Lock = field(default_factory=documents.Lock)
    teams: dict[str, documents.Team] = field(default_factory=dict)
    providers: dict[str, gateway.Provider] = field(default_factory=dict)
    models: dict[str, gateway.Model] = field(default_factory=dict)
    virtual_models: dict[str, gateway.VirtualModel] = field(default_factory=dict)
    servers: dict[str, gateway.ToolServer] = field(default_factory=dict)
    destructive: list[str] = field(default_factory=list)
    budgets: list[gateway.BudgetRule] = field(default_factory=list)
    rate_limits: list[RateLimit] = field(default_factory=list)
    guardrails: list[Guardrail] = field(default_factory=list)
    caches: list[Cache] = field(default_factory=list)
    principal_files: list[tuple[PrincipalsFile, Document]] = field(default_factory=list)
    """As they were read; what they come to follows from everything else."""
    principals: dict[AgentName, PrincipalConfig] = field(default_factory=dict)
    rollouts: dict[str, RolloutPolicy] = field(default_factory=dict)
    """The policies of interlock.yaml, resolved."""
    owner_rules: tuple[OwnerRule, ...] = ()
    """Who decides about paths: teams.*.owns, then CODEOWNERS; the last match wins."""
    team_documents: dict[str, Document] = field(default_factory=dict)
    places: dict[tuple[str, str], Place] = field(default_factory=dict)
    """(kind, name) → where it is named. Kinds are those of the units of a plan: model,
    virtual-model (a model too), provider, server, tool, budget, rate-limit, guardrail, cache,
    principal, rollout, team, image, fingerprint, skill; fleet/defaults and its like;
    destructive/list."""

    @cached_property
    def platform(self) -> gateway.Policy:
        """The gateway's part of it. Not to be asked for before everything is read."""
        return gateway.Policy(
            providers=self.providers,
            models=self.models,
            virtual_models=self.virtual_models,
            servers=self.servers,
            destructive=tuple(self.destructive),
            budgets=tuple(self.budgets),
            rate_limits=tuple(self.rate_limits),
            guardrails=tuple(self.guardrails),
            caches=tuple(self.caches),
        )

    @cached_property
    def fleet_layer(self) -> Layer:
        """What every agent inherits."""
        if self.fleet is None or self.fleet_document is None:
            return Layer("fleet")
        return layer("fleet", self.fleet.defaults, self.fleet_document, ["fleet", "defaults"])

    @cached_property
    def team_layers(self) -> dict[str, Layer]:
        """What the agents of each team inherit before that."""
        return {
            name: layer(
                "team", team.defaults, self.team_documents[name], ["teams", name, "defaults"]
            )
            for name, team in self.teams.items()
        }

    @cached_property
    def team_uses(self) -> dict[str, documents.Uses]:
        """What the agents of each team may name; of teams that restrict it only."""
        return {name: team.uses for name, team in self.teams.items() if team.uses.model_fields_set}

    def layers(self, team: str) -> tuple[Layer, ...]:
        """What an agent of a team inherits from, the nearest first."""
        above = self.team_layers.get(team)
        return (self.fleet_layer,) if above is None else (above, self.fleet_layer)

    def team_configs(self) -> dict[TeamName, TeamConfig]:
        """The teams as values, by name."""
        return {
            TeamName(name): TeamConfig(
                name=TeamName(name),
                members=tuple(team.members),
                owns=tuple(team.owns),
                uses={
                    kind: tuple(globs)
                    for kind in documents.Uses.model_fields
                    if (globs := getattr(team.uses, kind)) is not None
                },
                defaults=self.team_layers[name].values,
            )
            for name, team in sorted(self.teams.items())
        }

    @property
    def model_names(self) -> list[str]:
        """Names an agent may use."""
        return [*self.models, *self.virtual_models]


def undefined(
    notes: Notes, place: Place, *, kind: str, name: str, known: list[str], home: str
) -> None:
    """A reference to nothing: `model "smrt" is not defined; did you mean "smart"? (home)`."""
    guess = did_you_mean(name, known)
    if guess:
        fix = f"{guess} ({home})"
    elif known:
        fix = f"defined: {printable(', '.join(sorted(known)[:12]))} ({home})"
    else:
        fix = f"define it in {home}"
    notes.error("undefined", place, f"{kind} {quoted(name)} is not defined", fix)


def home(shared: Shared, kind: str, fallback: str) -> str:
    """The file that defines things of a kind."""
    files = sorted({place.file for (k, _), place in shared.places.items() if k == kind})
    return ", ".join(files) or fallback
