"""A tool server written with the official SDK: runs unchanged under its major lines 1 and 2.

`python sdk_server.py` speaks on stdio; `python sdk_server.py PORT [json]` over Streamable HTTP.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

try:
    from mcp.server import MCPServer as Line
except ImportError:
    from mcp.server.fastmcp import FastMCP as Line  # type: ignore[import-not-found,no-redef]

NEW = Line.__name__ == "MCPServer"
PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 0
PLAIN = "json" in sys.argv
server: Any = Line("sdk") if NEW else Line("sdk", port=PORT, json_response=PLAIN)  # type: ignore[call-arg]


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def echo(text: str) -> str:
    """Says it again."""
    return text


@server.tool()
def big(count: int) -> str:
    """A long answer."""
    return "".join(f"line {number} äöü\n" for number in range(count))


@server.tool()
def environment() -> dict[str, str]:
    """What the server knows of the world it runs in."""
    return dict(os.environ)


@server.tool()
def fail() -> str:
    """Never works."""
    raise ValueError("out of luck")


@server.tool()
def die() -> str:
    """Ends the server."""
    sys.stderr.write(f"dying with {os.environ.get('TOKEN')}\n")
    sys.stderr.flush()
    os._exit(3)


@server.tool()
def slow(seconds: float) -> str:
    """Takes its time."""
    time.sleep(seconds)
    return "slow"


if PORT:
    server.run("streamable-http", **({"port": PORT, "json_response": PLAIN} if NEW else {}))
else:
    server.run("stdio")
