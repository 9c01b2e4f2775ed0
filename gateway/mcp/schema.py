"""The tables of this room: large results, and what a server's OAuth needs to be remembered."""

from __future__ import annotations

from gateway.database import Migration

MIGRATIONS = (
    Migration(
        "gateway.mcp",
        1,
        (
            """CREATE TABLE artifacts (
                id TEXT PRIMARY KEY,
                run TEXT NOT NULL, tool TEXT NOT NULL,
                media TEXT NOT NULL, label TEXT NOT NULL,
                bytes BIGINT NOT NULL, content BYTEA NOT NULL,
                created_at BIGINT NOT NULL
            )""",
            "CREATE INDEX artifacts_by_run ON artifacts (run, created_at, id)",
            # `person` is '' for a server's own token. `seed` is the SHA-256 of the token that
            # the operator or the person gave: another one given replaces what was rotated since.
            """CREATE TABLE oauth_tokens (
                server TEXT NOT NULL, person TEXT NOT NULL,
                seed TEXT NOT NULL, refresh_token TEXT NOT NULL,
                updated_at BIGINT NOT NULL,
                PRIMARY KEY (server, person)
            )""",
        ),
    ),
)
