"""Access tokens for tool servers that want OAuth 2 (RFC 6749): got, kept in memory, renewed.

An access token lives in this process only. A refresh token that the authorization server replaces
must outlive it, or the next start would be locked out; and a person's delegation has no other
place: both are kept by `gateway.access.delegations`. None is ever in a log, a result or an error.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

from gateway.access import delegations
from gateway.database import Database, GroupCommit, Transaction
from gateway.keys import allowed_hosts, bound_to
from gateway.policy import OAuth
from gateway.providers.upstream import Upstream
from gateway.refusals import Code, Refusal
from gateway.routing import Failure
from gateway.values import Clock, Millis

SKEW_MS: Final = 60_000
"""A token is not used in its last minute: it would run out on its way."""
UNSAID_SECONDS: Final = 300
"""Life of a token whose server does not say how long it has."""
SECONDS: Final = 30

_ERROR = re.compile(r"[a-z_]{1,40}")


class Vault:
    """Refresh tokens in the database, for the process that uses them."""

    def __init__(self, database: Database, commits: GroupCommit, clock: Clock) -> None:
        self._database = database
        self._commits = commits
        self._clock = clock

    def find(self, server: str, user: str) -> tuple[str, str] | None:
        """(seed, refresh token) of a server and a person ("" for the server's own)."""
        return delegations.kept(self._database, server, user)

    async def replace(self, server: str, user: str, *, seed: str, old: str, new: str) -> None:
        """Keep a rotated refresh token, durably, unless a person gave another one meanwhile."""

        def work(tx: Transaction) -> None:
            found = delegations.kept(tx, server, user)
            if found is None and user:
                return  # withdrawn meanwhile
            if found is None or user == "" or found[1] == old:
                delegations.keep(tx, server, user, seed=seed, token=new, now=self._clock.now())

        await self._commits.write(work)


@dataclass(slots=True)
class _Held:
    """One principal's access token of one server."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    token: str = ""
    until: int = 0
    seed: str = ""
    """What it was got with; "" for a client's own credentials."""


class Tokens:
    """Access tokens by server and person; each is asked for once, however many calls wait."""

    def __init__(self, upstream: Upstream, clock: Clock, vault: Vault | None = None) -> None:
        self._upstream = upstream
        self._clock = clock
        self._vault = vault
        self._held: dict[tuple[str, str, str, str], _Held] = {}

    async def access(self, server: str, oauth: OAuth, user: str | None) -> str:
        """A token that is good for a minute at least.

        Raises Refusal: no_delegation (`per_user`, and nobody, or nobody who delegated),
        provider_error (a secret is missing or may not go there). Raises Failure (not done): the
        authorization server did not give one.
        """
        if oauth.per_user and not user:
            raise Refusal(
                Code.NO_DELEGATION,
                f"tool server {server} is used as a person, and this run is for nobody: start it "
                "for a user",
            )
        held = self._held.setdefault(self._key(server, oauth, user), _Held())
        async with held.lock:
            person = (user or "") if oauth.per_user else ""
            # Looked up every time: a delegation that was taken back ends with the next call.
            seed, refresh = self._refresh_token(server, oauth, person)
            late = self._clock.now() >= held.until - SKEW_MS
            if not held.token or late or held.seed != seed:
                held.token, held.until = await self._get(server, oauth, person, seed, refresh)
                held.seed = seed
            return held.token

    def forget(self, server: str, oauth: OAuth, user: str | None, token: str | None) -> None:
        """The server did not take this token: ask for another one, unless that was done since."""
        held = self._held.get(self._key(server, oauth, user))
        if held is not None and held.token == token:
            held.token = ""

    def _key(self, server: str, oauth: OAuth, user: str | None) -> tuple[str, str, str, str]:
        who = (user or "") if oauth.per_user else ""
        return server, oauth.token_url, f"{oauth.client_id} {' '.join(oauth.scopes)}", who

    async def _get(
        self, server: str, oauth: OAuth, person: str, seed: str, refresh: str | None
    ) -> tuple[str, Millis]:
        form = {"grant_type": "client_credentials"}
        if refresh is not None:
            self._upstream.keyring.learn(refresh)
            form = {"grant_type": "refresh_token", "refresh_token": refresh}
        if oauth.scopes:
            form["scope"] = " ".join(oauth.scopes)
        begun = self._clock.now()
        answer = await self._post(server, oauth, form, person)
        token, life = answer.get("access_token"), answer.get("expires_in", UNSAID_SECONDS)
        if not isinstance(token, str) or not token or not token.isascii():
            raise Failure(f"{_where(server)} gave no access token", done=False)
        self._upstream.keyring.learn(token)
        rotated = answer.get("refresh_token")
        if refresh and self._vault and isinstance(rotated, str) and rotated not in ("", refresh):
            await self._vault.replace(server, person, seed=seed, old=refresh, new=rotated)
        seconds = int(life) if isinstance(life, int | str) and str(life).isdigit() else 0
        # One that lives shorter than the skew serves once.
        return token, Millis(begun + seconds * 1000)

    def _refresh_token(self, server: str, oauth: OAuth, person: str) -> tuple[str, str | None]:
        """(seed, token); token None: this client uses its own credentials."""
        kept = self._vault.find(server, person) if self._vault else None
        if oauth.per_user:
            if kept is None:
                raise Refusal(
                    Code.NO_DELEGATION,
                    f"{person} has not delegated tool server {server}: "
                    f"`interlock token delegate {server} --user {person}`, then run again",
                )
            return kept
        if oauth.refresh_token is None:
            return "", None
        hosts = allowed_hosts(oauth.hosts, oauth.token_url)
        given = self._upstream.keyring.find(oauth.refresh_token, url=oauth.token_url, hosts=hosts)
        assert given is not None
        seed = delegations.seed_of(given)
        # Rotated since, unless the operator has given another one.
        return (seed, kept[1]) if kept is not None and kept[0] == seed else (seed, given)

    async def _post(
        self, server: str, oauth: OAuth, form: Mapping[str, str], person: str
    ) -> dict[str, Any]:
        hosts = allowed_hosts(oauth.hosts, oauth.token_url)
        bound_to(oauth.token_url, hosts)
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
        }
        secret = self._upstream.keyring.find(oauth.client_secret, url=oauth.token_url, hosts=hosts)
        if secret is None:
            form = {**form, "client_id": oauth.client_id}
        else:
            # RFC 6749, 2.3.1: form-encoded before base64; the way every server must support.
            pair = f"{quote(oauth.client_id, safe='')}:{quote(secret, safe='')}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        try:
            async with self._upstream.post(
                oauth.token_url,
                urlencode(form).encode(),
                headers=headers,
                where=_where(server),
                seconds=SECONDS,
                secret=secret,
            ) as answer:
                status, text = answer.status, await answer.text()
        except Failure as failure:
            # Whatever became of the token, no tool has been called.
            raise Failure(failure.message, done=False, code=failure.code) from None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            found = {}
        if status == 200:
            return found
        # Only the code: a description may quote what was sent.
        code = found.get("error")
        told = code if isinstance(code, str) and _ERROR.fullmatch(code) else "no reason given"
        if person and told == "invalid_grant":
            raise Refusal(
                Code.NO_DELEGATION,
                f"{person}'s delegation of tool server {server} is no longer accepted: "
                f"`interlock token delegate {server} --user {person}` again",
            )
        raise Failure(f"{_where(server)} answered HTTP {status} ({told})", done=False)


def _where(server: str) -> str:
    return f"the authorization server of {server}"
