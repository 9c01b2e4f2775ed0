"""A person's verb on a live system: where it must be written, so that it holds.

Beside a running reconciler the database is shared: the verb is one transaction there, in force
with its commit, and that reconciler writes the record. Otherwise the authority is the signed
`state/` on the reports branch: the verb starts from what stands there, and is in force when its
own signed commit has been pushed. If another machine was faster, nothing of ours is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

from reconciler.operations import Done, Refused
from reconciler.process.compose import Options, open_context, restore_if_behind
from reconciler.process.lock import holder, sole
from reconciler.process.loop import Context, Loop, Progress, need_signer
from runner import queue


def act(
    options: Options,
    environment: Mapping[str, str],
    do: Callable[[Context], Done],
    *,
    record: bool = True,
) -> Done:
    """Carry out one operation. Raises Refused, also when it could not be made to hold.

    Without `record` it stays in this state directory until the next job there writes it: for a
    request that is nothing before it is carried out.
    """
    mode = holder(options.state)
    if mode == "other":
        raise Refused(
            f"an evaluation or a rebuild is at work in {options.state}; wait for its end, or use "
            "another --state"
        )
    if mode is not None:
        return do(open_context(options, environment, job=mode == "job"))
    with ExitStack() as stack:
        stack.enter_context(sole(options.state))
        context = open_context(options, environment, job=True)
        need_signer(context)
        restore_if_behind(context)
        done = do(context)
        if not record:
            return done
        loop = Loop(context, options, environment, _unwatched, stack)
        open_live = any(run["purpose"] == "live" for run in queue.open_runs(context.database))
        result = loop.publish(clean=not open_live)
        if result.outcome not in ("pushed", "nothing_new"):
            raise Refused(
                f"{done.text}; but only in {options.state}: the record was not written "
                f"({result.outcome}: {result.reason}). It holds on this machine; the next job that "
                "uses this state directory tries to write it again."
            )
        return done


def _unwatched(context: Context, progress: Progress) -> None:
    """Nobody is shown the progress of a single operation."""
