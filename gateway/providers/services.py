"""Services that guardrails ask: one question, one answer, with the key that is theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.guardrails import Ask
from gateway.policy.rules import HttpCheck
from gateway.providers.upstream import Upstream


def services(upstream: Upstream) -> Ask:
    """Puts questions to services over the gateway's client. A key goes to the rule's hosts only."""

    async def ask(check: HttpCheck, question: Mapping[str, Any]) -> Any:
        secret = upstream.keyring.find(check.key, url=check.url, hosts=check.hosts)
        headers: dict[str, str] = {}
        if secret:
            plain = check.header.lower() == "authorization" and " " not in secret
            headers[check.header] = f"Bearer {secret}" if plain else secret
        answer = await upstream.ask(
            check.url,
            json.dumps(question, ensure_ascii=False).encode(),
            headers=headers,
            where=f"service {check.url}",
            seconds=max(1, -(-check.timeout_ms // 1000)),
            secret=secret,
        )
        if answer.status != 200:
            raise ValueError(f"HTTP {answer.status}")
        return json.loads(await answer.raw())

    return ask
