"""References between the shared files: each must lead somewhere, or the commit is refused."""

from __future__ import annotations

from fnmatch import fnmatchcase

from reconciler.config.common import LOCK, Shared, home, undefined
from reconciler.config.inheritance import Layer
from reconciler.config.reader import Notes
from reconciler.findings import Place, quoted


def cross_check(shared: Shared, notes: Notes) -> None:
    """Follow every reference between shared files; a locked tool gets its fingerprint."""
    _models(shared, notes)
    _lock(shared, notes)
    for name in shared.teams:
        _team_within_itself(shared, name, notes)
    for one in (shared.fleet_layer, *shared.team_layers.values()):
        _defaults(shared, one, notes)


def _models(shared: Shared, notes: Notes) -> None:
    for name, model in shared.models.items():
        if model.provider not in shared.providers:
            undefined(
                notes,
                shared.places["model", name],
                kind="provider",
                name=model.provider,
                known=list(shared.providers),
                home=home(shared, "provider", "gateway/models.yaml"),
            )
    for name, virtual in shared.virtual_models.items():
        for target in virtual.targets:
            if target not in shared.models:
                undefined(
                    notes,
                    shared.places["model", name],
                    kind="model",
                    name=target,
                    known=list(shared.models),
                    home=home(shared, "model", "gateway/models.yaml"),
                )


def _lock(shared: Shared, notes: Notes) -> None:
    for tool, fingerprint in shared.lock.tools.items():
        server, _, name = tool.partition(".")
        found = shared.servers.get(server)
        if found is None or name not in found.tools:
            notes.warn(
                "lock-stale",
                Place(LOCK),
                f"{tool} is locked but not declared",
                "refresh it with `interlock lock`",
            )
            continue
        tools = {
            **found.tools,
            name: found.tools[name].model_copy(update={"fingerprint": fingerprint}),
        }
        shared.servers[server] = found.model_copy(update={"tools": tools})


def _defaults(shared: Shared, layer: Layer, notes: Notes) -> None:
    """What agents would inherit must exist, or every one of them would be in error."""
    fleet = shared.fleet_document
    known = (
        ("model", shared.model_names, home(shared, "model", "gateway/models.yaml"), "model"),
        (
            "rollout",
            list(shared.rollouts),
            fleet.file if fleet else "interlock.yaml",
            "rollout policy",
        ),
    )
    for path, names, where, kind in known:
        origin = layer.origins.get(path)
        name = layer.values.get(path)
        if origin is not None and origin.place is not None and name not in names:
            undefined(notes, origin.place, kind=kind, name=str(name), known=list(names), home=where)


def _team_within_itself(shared: Shared, name: str, notes: Notes) -> None:
    """A team's default model is one its agents may use."""
    layer, globs = shared.team_layers[name], shared.teams[name].uses.models
    model = layer.values.get("model")
    if globs is None or not isinstance(model, str):
        return
    if not any(fnmatchcase(model, glob) for glob in globs):
        place = layer.origins["model"].place
        assert place is not None
        where = shared.team_documents[name].at(["teams", name, "uses", "models"])
        notes.error(
            "not-allowed",
            place,
            f"team {quoted(name)} may not use model {quoted(model)} (uses.models at {where})",
            "add it there, or name another model",
        )
