"""The official client of line 1 against an address: what it saw, as JSON on stdout.

Runs in the environment of `tests.support.old_mcp`, so it imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys

from mcp import ClientSession  # type: ignore[attr-defined]
from mcp.client.streamable_http import streamablehttp_client  # type: ignore[attr-defined]
from mcp.shared.exceptions import McpError  # type: ignore[attr-defined]


async def main(url: str) -> None:
    seen: dict[str, object] = {}
    async with (
        streamablehttp_client(url) as (reading, writing, _),
        ClientSession(reading, writing) as session,
    ):
        opened = await session.initialize()
        seen["version"] = opened.protocolVersion
        seen["server"] = opened.serverInfo.name
        await session.send_ping()
        seen["tools"] = {}
        cursor = None
        while True:
            page = await session.list_tools(cursor)
            seen["tools"] |= {t.name: t.description for t in page.tools}  # type: ignore[operator]
            cursor = page.nextCursor
            if cursor is None:
                break
        added = await session.call_tool("sdk__add", {"a": 1, "b": 2})
        seen["added"] = added.content[0].text
        failed = await session.call_tool("sdk__fail", {})
        seen["failed"] = [failed.isError, failed.content[0].text]
        wrong = await session.call_tool("sdk__add", {"a": "x", "b": 2})
        seen["wrong"] = [wrong.isError, wrong.content[0].text]
        try:
            await session.call_tool("sdk__die", {})
        except McpError as error:
            seen["refused"] = [error.error.code, error.error.data["code"]]
        big = await session.call_tool("sdk__big", {"count": 2000})
        seen["preview"] = big.content[0].text
        listed = await session.list_resources()
        read = await session.read_resource(listed.resources[0].uri)
        seen["whole"] = read.contents[0].text
        try:
            await session.read_resource("interlock://artifacts/art-" + 32 * "0")
        except McpError as error:
            seen["missing"] = error.error.code
    print(json.dumps(seen))


asyncio.run(main(sys.argv[1]))
