"""Who may call and what they may reach, in memory: as true as the last look at the epoch.

Both the event loop and the thread that writes the ledger ask here. The loop's answer may be a
moment old, so it only prepares a call; what decides is asked again inside the transaction that
reserves, after `refresh`, so that a revocation that commits first always wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gateway.access import epoch, published, stops, tokens
from gateway.access.tokens import Caller, Reader
from gateway.budgets import Rules
from gateway.database import Row
from gateway.policy import Grants, Policy, effective, in_recorded_world
from gateway.refusals import Code, Refusal
from gateway.values import Millis

MOST_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Standing:
    """A principal as it stands: what its release grants ∩ what its role may do today.

    `sides` are both of them: arguments of tools are held against each by itself.
    """

    who: Caller
    grants: Grants
    sides: tuple[Grants, ...]
    row: Row


@dataclass(frozen=True, slots=True)
class InForce:
    """The policy that is in force."""

    digest: str
    policy: Policy
    rules: Rules


@dataclass(slots=True)
class _Known:
    """What has been looked up since the epoch moved."""

    epoch: int
    stops: Sequence[Row] | None = None
    policy: InForce | None = None
    standings: dict[str, Standing] = field(default_factory=dict)


class Directory:
    """One per process. Thread-safe: what is looked up goes into the memory it was begun for, and
    a move of the epoch replaces the whole memory."""

    def __init__(self) -> None:
        self._known = _Known(-1)
        self._policies: dict[str, InForce] = {}

    @property
    def epoch(self) -> int:
        """What it knows is of this epoch."""
        return self._known.epoch

    def refresh(self, reader: Reader) -> bool:
        """Forget what may have changed; True when something has."""
        now = epoch.current(reader)
        if now == self._known.epoch:
            return False
        self._known = _Known(now)
        return True

    @property
    def known_policy(self) -> InForce | None:
        """The policy in force as far as anybody has asked for it."""
        return self._known.policy

    def in_force(self, reader: Reader) -> InForce:
        """The policy in force. Raises Refusal (no_policy)."""
        known = self._known
        if known.policy is None:
            digest, policy = published.current_policy(reader)
            found = self._policies.get(digest)
            if found is None:
                if len(self._policies) >= 4:
                    self._policies.clear()
                found = self._policies[digest] = InForce(digest, policy, Rules(policy.budgets))
            known.policy = found
        return known.policy

    def standing(self, reader: Reader, token_hash: str, now: Millis) -> Standing:
        """The principal behind a token and its rights, if it may call at all right now.

        Raises Refusal: unauthenticated (unknown, expired), revoked, or stopped, with its reason.
        """
        known = self._known
        found = known.standings.get(token_hash)
        if found is None:
            found = _look_up(reader, tokens.find(reader, token_hash))
            if len(known.standings) >= MOST_KEPT:
                known.standings.clear()
            known.standings[token_hash] = found
        if known.stops is None:
            known.stops = reader.read("SELECT * FROM stops ORDER BY agent")
        # Before the expiry: a stop also ends what was begun with a token that has expired since.
        if known.stops:
            stops.check(known.stops, found.who.principal.agent, now)
        tokens.unexpired(found.row, now)
        return found

    def barred_among(
        self, reader: Reader, token_hashes: Sequence[str], *, now: Millis
    ) -> dict[str, Refusal]:
        """Those of these tokens that have been revoked or whose agent is stopped, with what a call
        of theirs would hear. A token that merely expired does not end what it began."""
        self.refresh(reader)
        found: dict[str, Refusal] = {}
        for token_hash in token_hashes:
            try:
                self.standing(reader, token_hash, now)
            except Refusal as refusal:
                if refusal.code in (Code.REVOKED, Code.STOPPED):
                    found[token_hash] = refusal
        return found


def _look_up(reader: Reader, row: Row) -> Standing:
    who = tokens.caller_of(row)
    declared = published.agent_policy(reader, who.principal.agent)
    ceiling = declared.roles.get(who.principal.role) if declared else None
    if ceiling is not None and who.outside:
        # Nobody's release: it may do what is declared for it today, whatever it was at first.
        who = replace(who, grants=ceiling)
    if who.sealed:
        ceiling = in_recorded_world(who.grants, ceiling)
    sides = (who.grants,) if ceiling is None else (who.grants, ceiling)
    return Standing(who, effective(who.grants, ceiling), sides, row)
