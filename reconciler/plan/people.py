"""Who is asked: always the owners that are in force, never those that a change brings along."""

from __future__ import annotations

from reconciler.findings import Place
from reconciler.fleet.owners import FLEET_FILE, Owners, people_of
from reconciler.plan.model import Side


class Asked:
    """Owners of places on the live side; each file is looked up once."""

    def __init__(self, live: Side) -> None:
        self._live = live
        self._owners = Owners(live.owners)
        self._known: dict[str, tuple[str, ...]] = {}

    def about(self, place: Place) -> tuple[str, ...]:
        """Of whom one must approve what is looser than what stands at `place`.

        The owners of the file, else those of interlock.yaml; `()` when there is nobody, and then
        nobody can approve it. The same rule as `reconciler.fleet.owners.deciders`.
        """
        known = self._known.get(place.file)
        if known is None:
            known = self._known[place.file] = self._deciders(place.file)
        return known

    def _deciders(self, path: str) -> tuple[str, ...]:
        for asked in (path, FLEET_FILE):
            owners = self._owners.of(asked)
            if people_of(owners, self._live.teams):
                return owners
        return ()
