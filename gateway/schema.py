"""Every table of the gateway, for whoever opens the database: each room owns its own."""

from __future__ import annotations

from gateway import calls
from gateway.mcp.schema import MIGRATIONS as MCP

MIGRATIONS = (*calls.MIGRATIONS, *MCP)
