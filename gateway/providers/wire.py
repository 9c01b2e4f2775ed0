"""Where a provider is, what it is asked in, and the asking: one place for every kind.

Both ways through the gateway end here, the forwarded request and the translated one. A cassette
answers from its tape, and a recording gateway keeps what passes.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from gateway.keys import Keyring, allowed_hosts
from gateway.policy import Api, Provider
from gateway.pricing import DEFAULT_URLS
from gateway.providers import tape
from gateway.providers.upstream import Answer, Upstream
from gateway.refusals import Code
from gateway.routing import Failure, Target, failure_of_status

ANTHROPIC_VERSION = "2023-06-01"
ALL: tuple[Api, ...] = ("chat", "responses", "messages", "embeddings")
_PATHS: Mapping[Api, str] = {
    "chat": "chat/completions",
    "responses": "responses",
    "embeddings": "embeddings",
    "messages": "v1/messages",
}


def apis_of(provider: Provider) -> tuple[Api, ...]:
    """What a provider can be asked in: what the policy says, or what its kind is known to have.

    A server that speaks like OpenAI seldom has Responses, or not all of it: it is OpenAI's own
    address that has it unasked.
    """
    if provider.apis is not None:
        return provider.apis
    match provider.kind:
        case "openai":
            return ("chat", "responses", "embeddings") if official(provider) else _PLAIN
        case "azure":
            return ("chat", "responses", "embeddings")
        case "anthropic":
            return ("messages",)
    return ALL


_PLAIN: tuple[Api, ...] = ("chat", "embeddings")


def official(provider: Provider) -> bool:
    """Is it the maker's own address, where every parameter of its documentation is known?"""
    if provider.kind == "azure":
        return True
    return _base(provider) == DEFAULT_URLS.get(provider.kind)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a request goes, and the head it needs. `secret` is the key in it, for scrubbing."""

    url: str
    headers: Mapping[str, str]
    secret: str | None


def endpoint(keyring: Keyring, target: Target, api: Api, suffix: str = "") -> Endpoint:
    """The address of a target for one of its APIs. Raises Refusal (no key, or a host that may not
    have it) and Failure (no address)."""
    provider = target.provider
    base = _base(provider)
    if base is None:
        raise Failure(f"provider {target.provider_name} has no `base_url`", done=False)
    url = _azure(base, target, api) if provider.kind == "azure" else _plain(base, provider, api)
    url += suffix
    secret = keyring.find(provider.key, url=url, hosts=allowed_hosts(provider.hosts, base))
    headers: dict[str, str] = {}
    if api == "messages":
        headers["anthropic-version"] = ANTHROPIC_VERSION
    if secret and provider.kind == "azure":
        headers["api-key"] = secret
    elif secret and api == "messages":
        headers["x-api-key"] = secret
    elif secret:
        headers["authorization"] = f"Bearer {secret}"
    return Endpoint(url, headers, secret)


def _base(provider: Provider) -> str | None:
    base = provider.base_url or DEFAULT_URLS.get(provider.kind)
    return None if base is None else base.rstrip("/")


def _plain(base: str, provider: Provider, api: Api) -> str:
    # Anthropic's address is written without the version, OpenAI's with it; either is understood.
    if api == "messages":
        base = base.removesuffix("/v1")
    return f"{base}/{_PATHS[api]}"


def _azure(base: str, target: Target, api: Api) -> str:
    """With an `api_version`, the deployment is in the path (Responses: in the body); without one
    it is the `v1` surface, which is spelled like OpenAI's."""
    version = target.provider.api_version
    base = base.removesuffix("/v1").removesuffix("/openai")
    if version is None:
        return f"{base}/openai/v1/{_PATHS[api]}"
    place = "" if api == "responses" else f"deployments/{quote(target.model.id, safe='')}/"
    return f"{base}/openai/{place}{_PATHS[api]}?api-version={quote(version, safe='')}"


@asynccontextmanager
async def ask(
    upstream: Upstream,
    target: Target,
    api: Api,
    body: Mapping[str, Any] | bytes,
    *,
    headers: Mapping[str, str] | None = None,
    suffix: str = "",
) -> AsyncIterator[Answer]:
    """Ask a target in one of its APIs and hand over the answer once it has begun.

    `body` is what is sent, as it is (bytes: already JSON); `headers` are sent besides; `suffix` is
    a path below the API's. Raises Failure (an error status too) and Refusal (no key). Leave the
    block before the last of the answer is handed on: what is recorded is written then.
    """
    where = f"provider {target.provider_name}"
    seconds = target.provider.timeout_seconds
    if target.provider.kind == "cassette":
        played = tape.play(target.provider, tape.digest(api, _read(body)), where=where)
        answer = Answer(played, where, seconds, None)
        await _check(answer)
        yield answer
        return
    place = endpoint(upstream.keyring, target, api, suffix)
    async with upstream.post(
        place.url,
        body,
        headers={**(headers or {}), **place.headers},
        where=where,
        seconds=seconds,
        secret=place.secret,
    ) as answer:
        if upstream.recorder is None:
            await _check(answer)
            yield answer
            return
        request = tape.digest(api, _read(body))
        tee = tape.Tee(answer.response, upstream.recorder, target.provider_name, request)
        recorded = replace(answer, response=tee)
        await _check(recorded)
        yield recorded
        tee.finish(place.secret)


async def whole(
    upstream: Upstream,
    target: Target,
    api: Api,
    body: bytes,
    *,
    headers: Mapping[str, str],
) -> Answer:
    """Ask a target in one of its APIs and wait for the whole answer, which is kept in it. Raises
    like `ask`."""
    where = f"provider {target.provider_name}"
    seconds = target.provider.timeout_seconds
    if target.provider.kind == "cassette":
        played = tape.play(target.provider, tape.digest(api, _read(body)), where=where)
        answer = Answer(played, where, seconds, None)
        answer.body = await answer.raw()
        await _check(answer)
        return answer
    place = endpoint(upstream.keyring, target, api)
    answer = await upstream.ask(
        place.url,
        body,
        headers={**headers, **place.headers},
        where=where,
        seconds=seconds,
        secret=place.secret,
    )
    await _check(answer)
    if upstream.recorder is not None:
        request = tape.digest(api, _read(body))
        entry = tape.entry_of(request, answer.response, await answer.text(), whole=True)
        if entry is not None:
            upstream.recorder.record(target.provider_name, entry)
    return answer


def _read(body: Mapping[str, Any] | bytes) -> Mapping[str, Any]:
    if not isinstance(body, bytes):
        return body
    value = json.loads(body)
    return value if isinstance(value, dict) else {}


async def _check(answer: Answer) -> None:
    if not 200 <= answer.status < 300:
        brief = await answer.brief()
        raise failure_of_status(answer.status, answer.where, brief, answer.retry_after)


_DECIMAL = re.compile(r"-?\d+(\.\d+)?")


def overridden(body: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A request with the policy's parameters put over the caller's.

    null takes a parameter away (a model that refuses `temperature`), an object is put over an
    object key by key, and a string that is a decimal number is that number (the policy has no
    floats).
    """
    out = dict(body)
    for name, value in parameters.items():
        given = out.get(name)
        if value is None:
            out.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(given, Mapping):
            out[name] = overridden(given, value)
        else:
            out[name] = _number(value)
    return out


def _number(value: Any) -> Any:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return float(value) if "." in value else int(value)
    if isinstance(value, Mapping):
        return {name: _number(item) for name, item in value.items()}
    return [_number(item) for item in value] if isinstance(value, list | tuple) else value


def unable(target: Target, why: str) -> Failure:
    """This target cannot be asked for it: nothing was done, another target may serve it, and it
    says nothing of the target's health."""
    return Failure(
        f"provider {target.provider_name} {why}",
        done=False,
        code=Code.INVALID_REQUEST,
        blameless=True,
    )
