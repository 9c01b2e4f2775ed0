"""Tokens of people and services that call the gateway from outside a run.

Who they are and what they may reach is declared in git (`gateway/principals.yaml`); a token only
says that somebody is one of them. It is shown once, and kept as its hash. Taking it back works
from the next call on, and cuts running streams.

The other way round a person may lend the gateway a token of theirs, for a tool server that is used
as that person: a delegation.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway import access
from gateway.database import Database, Row, Transaction
from gateway.refusals import Refusal
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


def delegate(
    database: Database, clock: Clock, server: str, *, user: str, refresh_token: str, actor: str
) -> Done:
    """Let runs for `user` use a tool server as that person; replaces an earlier delegation.

    `refresh_token` is what the server's authorization server gave that person (RFC 6749, 6). It
    is kept as it is, readable for the gateway's user only, and is in no record and no answer.
    Raises Refused for a server in force that is not used as a person, and for what is no token.
    """
    if user.split() != [user]:
        raise Refused(f"{user!r} is nobody's login")
    if not refresh_token or not all("!" <= letter <= "~" for letter in refresh_token):
        raise Refused("a refresh token is one line of printable ASCII without blanks; this is none")
    now = clock.now()
    with database.transaction() as tx:
        _used_as_a_person(tx, server)
        access.delegate(tx, server=server, user=user, refresh_token=refresh_token, now=now)
        audit.append(
            tx, now=now, actor=actor, action="token.delegated", subject=server, reason=f"as {user}"
        )
    return Done(f"runs for {user} use tool server {server} as {user}", server)


def withdraw(database: Database, clock: Clock, server: str, *, user: str, actor: str) -> Done:
    """Take a delegation back, from the next call on. Raises Refused when there is none.

    Of a server that is not in the policy any more, too: what lies there must be able to go.
    """
    now = clock.now()
    with database.transaction() as tx:
        if not user or not access.withdraw(tx, server=server, user=user):
            raise Refused(f"{user} has not delegated tool server {server}")
        audit.append(
            tx, now=now, actor=actor, action="token.withdrawn", subject=server, reason=f"of {user}"
        )
    return Done(f"{user}'s delegation of tool server {server} is taken back", server)


def listing(reader: Database | Transaction) -> list[Token]:
    """Every token ever issued here for a call from outside a run, newest first."""
    return sorted(_tokens(reader), key=lambda one: (-one.issued_at, one.id))


def _used_as_a_person(tx: Transaction, server: str) -> None:
    try:
        servers = access.current_policy(tx)[1].servers
    except Refusal as refusal:
        raise Refused(refusal.message) from None
    found = servers.get(server)
    if found is None or found.oauth is None or not found.oauth.per_user:
        known = [n for n, s in sorted(servers.items()) if s.oauth is not None and s.oauth.per_user]
        raise Refused(
            f"{server!r} is not a tool server that is used as a person (oauth: {{per_user: true}} "
            f"in gateway/mcp-servers.yaml, and in force); there are: {', '.join(known) or 'none'}"
        )


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
