"""Tokens of people and services that call the gateway from outside a run.

Who they are and what they may reach is declared in git (`gateway/principals.yaml`); a token only
says that somebody is one of them. It is shown once, and kept as its hash. Taking it back works
from the next call on, and cuts running streams.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway import access
from gateway.database import Database, Row, Transaction
from gateway.values import (
    AgentName,
    Clock,
    Millis,
    Occurrence,
    Principal,
    Purpose,
    RunId,
    TeamName,
)
from reconciler.approvals import store
from reconciler.config.models.fields import written_duration
from reconciler.operations.outcome import Done, Refused
from reconciler.plan.phrases import record, texts
from reconciler.record import audit

RUN = "ext-"
"""What stands before a token's id where the ledger has a run."""
USER, SERVICE = "user:", "service:"


@dataclass(frozen=True, slots=True)
class Token:
    """A token without the token. `user` is the person it is for; `why` it was taken back."""

    id: str
    principal: AgentName
    user: str | None
    issued_at: Millis
    expires_at: Millis
    revoked_at: Millis | None
    why: str | None

    def state(self, now: Millis) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.expires_at > now else "expired"


def new(
    database: Database,
    clock: Clock,
    name: str,
    *,
    token: str,
    expires_in_ms: int,
    actor: str,
    user: str | None = None,
) -> Done:
    """Let `token` speak for a principal; the answer's subject is the id it is taken back by.

    `name` is `user:NAME`, `service:NAME`, or NAME alone where only one of the two exists. `token`
    is a secret of 32 random bytes or more that the caller drew. `user` is the person a service's
    calls are for; a person's are their own. Raises Refused for a principal that is not in force.
    """
    now = clock.now()
    with database.transaction() as tx:
        principal, tags = _principal(tx, name)
        if principal.startswith(USER):
            own = principal.removeprefix(USER)
            if user not in (None, own):
                raise Refused(f"a token of {principal} is for {own}; --for-user is for services")
            user = own
        if user is not None and user.split() != [user]:
            raise Refused(f"{user!r} is nobody's login")
        ceiling = access.agent_policy(tx, principal)
        grants = ceiling.roles.get("main") if ceiling is not None else None
        if ceiling is None or grants is None:
            raise Refused(f"{principal} may call nothing yet; run `interlock reconcile --once`")
        identity = access.hash_token(token)[:16]
        access.issue(
            tx,
            Principal(
                run=RunId(RUN + identity),
                agent=principal,
                team=TeamName(ceiling.team),
                role="main",
                release=access.NO_RELEASE,
                purpose=Purpose.LIVE,
                occurrence=Occurrence(f"token:{identity}"),
                user=user,
                tags=tags,
            ),
            grants,
            None,
            token=token,
            now=now,
            expires_at=Millis(now + expires_in_ms),
        )
        # Not as a line about an agent: nothing of an agent's follows from it.
        audit.append(
            tx,
            now=now,
            actor=actor,
            action="token.issued",
            subject=identity,
            reason=f"{principal}{f' for {user}' if user else ''},"
            f" expires in {written_duration(expires_in_ms)}",
        )
    return Done(f"token {identity} of {principal}", identity)


def revoke(database: Database, clock: Clock, name: str, *, reason: str, actor: str) -> Done:
    """Take a token back by its id. Raises Refused when there is none, or none any more."""
    now = clock.now()
    identity = name.removeprefix(RUN)
    with database.transaction() as tx:
        found = next((one for one in _tokens(tx) if one.id == identity), None)
        if found is None:
            raise Refused(f"there is no token {name}; `interlock token list` shows what there is")
        if found.revoked_at is not None:
            raise Refused(f"token {identity} was taken back already: {found.why}")
        access.revoke(tx, run=RunId(RUN + identity), why=f"{reason} ({actor})", now=now)
        audit.append(
            tx,
            now=now,
            actor=actor,
            action="token.revoked",
            subject=identity,
            reason=f"{found.principal}: {reason}",
        )
    return Done(f"token {identity} of {found.principal} is taken back", identity)


def listing(reader: Database | Transaction) -> list[Token]:
    """Every token ever issued here for a call from outside a run, newest first."""
    return sorted(_tokens(reader), key=lambda one: (-one.issued_at, one.id))


def _tokens(reader: Database | Transaction) -> list[Token]:
    rows = reader.read("SELECT * FROM tokens WHERE release = :none", none=access.NO_RELEASE)
    return [_token(row) for row in rows]


def _token(row: Row) -> Token:
    return Token(
        id=str(row["run"]).removeprefix(RUN),
        principal=AgentName(row["agent"]),
        user=row["for_user"],
        issued_at=Millis(row["issued_at"]),
        expires_at=Millis(row["expires_at"]),
        revoked_at=None if row["revoked_at"] is None else Millis(row["revoked_at"]),
        why=row["revoked_why"],
    )


def _principal(tx: Transaction, name: str) -> tuple[AgentName, tuple[str, ...]]:
    """The principal in force that `name` means, and its tags."""
    there = {
        scope.partition("/")[2]: row
        for scope, row in store.units_in_force(tx).items()
        if scope.startswith("principal/")
    }
    meant = [known for known in there if name in (known, known.partition(":")[2])]
    if len(meant) > 1:
        raise Refused(f"{name!r} is {' and '.join(sorted(meant))}; write which one")
    if not meant:
        known = ", ".join(sorted(there)) or "none; declare them in gateway/principals.yaml"
        raise Refused(
            f"nobody from outside is called {name!r} in what is in force; there are: {known}"
        )
    fields = record(there[meant[0]].value)
    return AgentName(meant[0]), texts(fields.get("tags"))
