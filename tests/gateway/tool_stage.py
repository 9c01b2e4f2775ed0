"""A real gateway with tool servers behind it: what its tests about tools publish, ask and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.policy import Access, AgentPolicy, Grants, ToolClass, ToolGrant, ToolServer
from tests.gateway.stage import Answer, Stage, grants, policy, principal
from tests.support.mcp_fake import FakeServer

READ = ToolClass(access=(Access.READ,))
WRITE = ToolClass(access=(Access.WRITE,))
OTHER = "token-of-run-2"


def at(hub: FakeServer, **more: Any) -> ToolServer:
    given = {"url": f"{hub.address}/mcp", "tools": {"open": WRITE, "list": READ}}
    return ToolServer(**{**given, **more})


def publish(stage: Stage, servers: Mapping[str, ToolServer], *more: str, **also: Any) -> Grants:
    """Every classified tool, and `more`, granted to `triage`."""
    names = [f"{name}.{each}" for name, server in servers.items() for each in server.tools]
    allowed = grants(tools={name: ToolGrant() for name in (*names, *more)})
    agents = {"triage": AgentPolicy(team="platform", roles={"main": allowed})}
    stage.publish(policy(servers=servers, **also), agents)
    stage.issue(granted=allowed)
    stage.issue(principal("run-2"), allowed, token=OTHER)
    return allowed


def start(stage: Stage, servers: Mapping[str, ToolServer], *more: str, **environment: str) -> None:
    publish(stage, servers, *more)
    stage.start(**environment)


def ask(stage: Stage, method: str, token: str = "token-of-run-1", **params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return stage.post("/mcp", body, token=token).json()


def call(
    stage: Stage, tool: str, key: str | None = None, token: str = "token-of-run-1", **args: Any
) -> Answer:
    params = {"name": tool, "arguments": args}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return stage.post("/mcp", body, key=key, token=token)


def said(answer: Answer) -> str:
    return str(answer.json()["result"]["content"][0]["text"])


def refused(answer: Answer) -> str:
    return str(answer.json()["error"]["data"]["code"])


def alerts(stage: Stage) -> list[str]:
    return [row["text"] for row in stage.database.read("SELECT text FROM alerts ORDER BY id")]
