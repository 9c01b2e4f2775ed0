"""The ledger's tables, and those that live in the same transactions."""

from __future__ import annotations

from enum import StrEnum

from gateway.database import Migration


class CallState(StrEnum):
    """Life of a row: reserved → settled | released | unknown. The last three are final."""

    RESERVED = "reserved"
    SETTLED = "settled"
    RELEASED = "released"
    UNKNOWN = "unknown"


MIGRATIONS = (
    Migration(
        "gateway",
        1,
        (
            """CREATE TABLE calls (
                run TEXT NOT NULL, step TEXT NOT NULL, call BIGINT NOT NULL,
                attempt BIGINT NOT NULL,
                kind TEXT NOT NULL CHECK (kind IN ('model', 'tool')),
                state TEXT NOT NULL
                    CHECK (state IN ('reserved', 'settled', 'released', 'unknown')),
                agent TEXT NOT NULL, team TEXT NOT NULL, role TEXT NOT NULL,
                release TEXT NOT NULL, purpose TEXT NOT NULL, occurrence TEXT NOT NULL,
                target TEXT NOT NULL,
                asked TEXT NOT NULL,
                effect_key TEXT,
                request_hash TEXT NOT NULL,
                reserved_nano BIGINT NOT NULL,
                cost_nano BIGINT,
                reserved_tokens BIGINT NOT NULL,
                input_tokens BIGINT, output_tokens BIGINT,
                cached_tokens BIGINT, reasoning_tokens BIGINT,
                price_table TEXT,
                label TEXT NOT NULL,
                policy TEXT NOT NULL,
                error TEXT,
                response TEXT,
                reserved_at BIGINT NOT NULL, settled_at BIGINT,
                PRIMARY KEY (run, step, call, attempt)
            )""",
            "CREATE INDEX calls_by_agent ON calls (agent, reserved_at)",
            "CREATE INDEX calls_by_state ON calls (state) WHERE state = 'reserved'",
            "CREATE INDEX calls_by_effect ON calls (effect_key) WHERE effect_key IS NOT NULL",
            # Running totals of each budget window, moved in the same transaction as the row they
            # count: the hot path asks one row instead of summing the ledger. `calls` stays the
            # truth; the totals are recomputed from it by `budgets.recount`.
            """CREATE TABLE budget_windows (
                rule TEXT NOT NULL, scope TEXT NOT NULL, window_start BIGINT NOT NULL,
                held_nano BIGINT NOT NULL, spent_nano BIGINT NOT NULL,
                held_tokens BIGINT NOT NULL, spent_tokens BIGINT NOT NULL,
                PRIMARY KEY (rule, scope, window_start)
            )""",
            # Which set of rules the totals were kept under. A total whose rule left the set is
            # dropped, because calls settle without it from then on; it is counted again from the
            # ledger when the rule comes back.
            """CREATE TABLE budget_basis (
                id BIGINT PRIMARY KEY CHECK (id = 1), rules TEXT NOT NULL
            )""",
            """CREATE TABLE alerts (
                id TEXT PRIMARY KEY, at BIGINT NOT NULL, kind TEXT NOT NULL,
                agent TEXT, text TEXT NOT NULL
            )""",
            """CREATE TABLE policies (
                digest TEXT PRIMARY KEY, document TEXT NOT NULL, published_at BIGINT NOT NULL
            )""",
            """CREATE TABLE current_policy (
                id BIGINT PRIMARY KEY CHECK (id = 1), digest TEXT NOT NULL
            )""",
            # Who may call: one row per token. The token itself is never stored.
            """CREATE TABLE tokens (
                token_hash TEXT PRIMARY KEY,
                run TEXT NOT NULL, agent TEXT NOT NULL, team TEXT NOT NULL, role TEXT NOT NULL,
                release TEXT NOT NULL, purpose TEXT NOT NULL, occurrence TEXT NOT NULL,
                grants TEXT NOT NULL,
                recorded TEXT,
                issued_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,
                revoked_at BIGINT, revoked_why TEXT
            )""",
            "CREATE INDEX tokens_by_run ON tokens (run)",
            "CREATE INDEX tokens_by_release ON tokens (release)",
            # Which principal a run's socket stands for: opened again after a restart.
            """CREATE TABLE sockets (
                run TEXT PRIMARY KEY, token_hash TEXT NOT NULL, opened_at BIGINT NOT NULL
            )""",
            # Stops of on-call and of policy: agent '*' is the whole fleet. Deny beats allow.
            """CREATE TABLE stops (
                agent TEXT PRIMARY KEY, reason TEXT NOT NULL, actor TEXT NOT NULL,
                at BIGINT NOT NULL, expires_at BIGINT
            )""",
        ),
    ),
    Migration(
        "gateway",
        2,
        (
            # What each agent may do today, apart from what all share: a change of one agent is a
            # change of one row.
            """CREATE TABLE ceilings (
                agent TEXT PRIMARY KEY, document TEXT NOT NULL, digest TEXT NOT NULL
            )""",
            # An earlier program's policy held both; until it is published anew nothing is allowed.
            "DELETE FROM current_policy",
        ),
    ),
    Migration(
        "gateway",
        3,
        (
            "ALTER TABLE calls ADD COLUMN for_user TEXT",
            "ALTER TABLE calls ADD COLUMN tags TEXT",
            "ALTER TABLE calls ADD COLUMN provider TEXT",
            "ALTER TABLE calls ADD COLUMN api TEXT",
            "ALTER TABLE calls ADD COLUMN cache_write_tokens BIGINT",
            "ALTER TABLE calls ADD COLUMN audio_tokens BIGINT",
            "ALTER TABLE calls ADD COLUMN begun_at BIGINT",
            "ALTER TABLE calls ADD COLUMN cached_from TEXT",
            "ALTER TABLE tokens ADD COLUMN for_user TEXT",
            "ALTER TABLE tokens ADD COLUMN tags TEXT",
            "ALTER TABLE budget_windows ADD COLUMN held_requests BIGINT NOT NULL DEFAULT 0",
            "ALTER TABLE budget_windows ADD COLUMN spent_requests BIGINT NOT NULL DEFAULT 0",
            # Counted again: they say nothing of requests.
            "DELETE FROM budget_windows",
            # Moved by whoever changes what a call may do (revokes, stops, publishes): the gateway
            # keeps all of it in memory for as long as this number stands still.
            """CREATE TABLE access_epoch (
                id BIGINT PRIMARY KEY CHECK (id = 1), epoch BIGINT NOT NULL
            )""",
            "INSERT INTO access_epoch (id, epoch) VALUES (1, 0)",
            # Where rate limits stood, so that a restart does not begin a day's window anew.
            """CREATE TABLE rate_limits (
                rule TEXT NOT NULL, scope TEXT NOT NULL, tat BIGINT NOT NULL,
                PRIMARY KEY (rule, scope)
            )""",
            # Which settled call answers an equal request, and until when.
            """CREATE TABLE cached_answers (
                cache TEXT NOT NULL, namespace TEXT NOT NULL, request_hash TEXT NOT NULL,
                run TEXT NOT NULL, step TEXT NOT NULL, call BIGINT NOT NULL,
                attempt BIGINT NOT NULL, expires_at BIGINT NOT NULL,
                PRIMARY KEY (cache, namespace, request_hash)
            )""",
            "CREATE INDEX cached_until ON cached_answers (expires_at)",
        ),
    ),
)
