"""The reconciler's tables, all in one place.

Every row here can be restored from the signed `state/` tree and the reports (reconciler.record),
so none of them is precious: in job mode the database is a cache of what git holds.
"""

from __future__ import annotations

from gateway.database import Migration

MIGRATIONS = (
    Migration(
        "reconciler",
        1,
        (
            # Self-contained release documents: enough to build a run without git.
            """CREATE TABLE releases (
                digest TEXT PRIMARY KEY, document TEXT NOT NULL,
                first_commit TEXT NOT NULL, first_seen BIGINT NOT NULL
            )""",
            # What the watched branch asks for today, per agent; NULL digest: broken, see findings.
            """CREATE TABLE desired (
                agent TEXT PRIMARY KEY, digest TEXT, team TEXT NOT NULL,
                commit_id TEXT NOT NULL, document TEXT NOT NULL, findings TEXT NOT NULL
            )""",
            # Where an agent's assignments go. `generation` counts flips: the fence of assignment.
            """CREATE TABLE pointers (
                agent TEXT PRIMARY KEY, stable TEXT, previous TEXT, anchor TEXT,
                candidate TEXT, rollout TEXT,
                generation BIGINT NOT NULL, since BIGINT NOT NULL
            )""",
            """CREATE TABLE rollouts (
                rollout TEXT PRIMARY KEY, agent TEXT NOT NULL,
                candidate TEXT NOT NULL, stable TEXT, anchor TEXT,
                state TEXT NOT NULL, look BIGINT NOT NULL, reason TEXT NOT NULL,
                verdict TEXT, policy TEXT NOT NULL, suite TEXT NOT NULL, commit_id TEXT NOT NULL,
                opened_at BIGINT NOT NULL, since BIGINT NOT NULL, closed_at BIGINT
            )""",
            "CREATE INDEX rollouts_by_agent ON rollouts (agent, opened_at)",
            # One graded eval attempt. `arm`: candidate, stable, anchor or sentinel:<id>.
            """CREATE TABLE attempts (
                rollout TEXT NOT NULL, arm TEXT NOT NULL, case_id TEXT NOT NULL,
                attempt BIGINT NOT NULL, run TEXT NOT NULL,
                status TEXT NOT NULL CHECK (status IN ('passed', 'failed', 'error')),
                detail TEXT NOT NULL, stop TEXT NOT NULL,
                cost_nano BIGINT NOT NULL, working_ms BIGINT NOT NULL,
                PRIMARY KEY (rollout, arm, case_id, attempt)
            )""",
            # What was decided on which evidence; signed by the commit that carries it.
            """CREATE TABLE receipts (
                receipt TEXT PRIMARY KEY, rollout TEXT NOT NULL, kind TEXT NOT NULL,
                document TEXT NOT NULL, at BIGINT NOT NULL
            )""",
            """CREATE TABLE quarantine (
                digest TEXT PRIMARY KEY, agent TEXT NOT NULL, rollout TEXT,
                reason TEXT NOT NULL, actor TEXT NOT NULL, at BIGINT NOT NULL
            )""",
            # kind: `promotion` (no automatic promotion) or `assignment` (no new runs either).
            """CREATE TABLE holds (
                hold TEXT PRIMARY KEY, agent TEXT NOT NULL, kind TEXT NOT NULL,
                reason TEXT NOT NULL, actor TEXT NOT NULL, at BIGINT NOT NULL,
                expires_at BIGINT, lifted_at BIGINT, lifted_by TEXT
            )""",
            # Job mode: pushed before a run starts. `state`: open, pushed, settled or lost.
            """CREATE TABLE claims (
                run TEXT PRIMARY KEY, agent TEXT NOT NULL, occurrence TEXT NOT NULL,
                release TEXT NOT NULL, slice_nano BIGINT NOT NULL, machine TEXT NOT NULL,
                state TEXT NOT NULL, claimed_at BIGINT NOT NULL, lease_until BIGINT NOT NULL
            )""",
            # Up to which moment an agent's schedule has been looked at.
            """CREATE TABLE schedules (agent TEXT PRIMARY KEY, looked_until BIGINT NOT NULL)""",
            # Who did what, when, why; each row holds the hash of the one before it.
            """CREATE TABLE audit (
                seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL,
                action TEXT NOT NULL, agent TEXT, subject TEXT NOT NULL, reason TEXT NOT NULL,
                previous TEXT NOT NULL, hash TEXT NOT NULL
            )""",
            "CREATE INDEX audit_by_subject ON audit (subject, action)",
            # Small facts about the reconciler itself: commit, last tick, state head, clean mark.
            """CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)""",
        ),
    ),
    Migration(
        "reconciler",
        2,
        (
            # A person's yes to one subject (plan.model.Subject), used up when it is let through.
            """CREATE TABLE approvals (
                approval TEXT PRIMARY KEY, subject TEXT NOT NULL, scope TEXT NOT NULL,
                pull BIGINT, head TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
                at BIGINT NOT NULL, expires_at BIGINT NOT NULL,
                consumed_at BIGINT, consumed_by TEXT
            )""",
            "CREATE INDEX approvals_by_subject ON approvals (subject)",
            # What holds, by scope: a shared unit's value; an agent's facts and admitted release.
            """CREATE TABLE in_force (
                scope TEXT PRIMARY KEY, value TEXT NOT NULL, digest TEXT NOT NULL,
                place TEXT NOT NULL, format TEXT NOT NULL,
                commit_id TEXT NOT NULL, since BIGINT NOT NULL
            )""",
            # What the newest commit asks for and may not have before somebody approves it.
            """CREATE TABLE waiting (
                waiting TEXT PRIMARY KEY, scope TEXT NOT NULL, document TEXT NOT NULL,
                commit_id TEXT NOT NULL, since BIGINT NOT NULL
            )""",
            # Comments on pull requests whose commands were carried out: each once.
            """CREATE TABLE pull_comments (
                pull BIGINT NOT NULL, comment BIGINT NOT NULL, head TEXT NOT NULL,
                author TEXT NOT NULL, asked TEXT NOT NULL, at BIGINT NOT NULL,
                PRIMARY KEY (pull, comment)
            )""",
            # Which subjects the plan comment of a head has told people of, and when.
            """CREATE TABLE shown (
                pull BIGINT NOT NULL, head TEXT NOT NULL, subject TEXT NOT NULL, at BIGINT NOT NULL,
                PRIMARY KEY (pull, head, subject)
            )""",
            # The pull request whose head a rollout judges; NULL: what the watched branch asks for.
            "ALTER TABLE rollouts ADD COLUMN pull BIGINT",
        ),
    ),
    Migration(
        "reconciler",
        3,
        (
            # Which content owns a version, for ever. `shard`: its file of state/, by path.
            """CREATE TABLE versions (
                path TEXT NOT NULL, number BIGINT NOT NULL, kind TEXT NOT NULL,
                oid TEXT NOT NULL, commit_id TEXT NOT NULL, at BIGINT NOT NULL,
                shard TEXT NOT NULL, PRIMARY KEY (path, number)
            )""",
            # Up to which commit of the branch that index was grown.
            """CREATE TABLE versions_until (branch TEXT PRIMARY KEY, commit_id TEXT NOT NULL)""",
        ),
    ),
    Migration(
        "reconciler",
        4,
        (
            # A tick asks for what is open, however much there has been.
            "CREATE INDEX rollouts_open ON rollouts (state, opened_at) WHERE closed_at IS NULL",
            "CREATE INDEX claims_by_state ON claims (state)",
        ),
    ),
)
