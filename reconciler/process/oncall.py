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


def act(options: Options, environment: Mapping[str, str], do: Callable[[Context], Done]) -> Done:
    """Carry out one operation. Raises Refused, also when it could not be made to hold."""
    mode = holder(options.state)
    if mode is not None:
        return do(open_context(options, environment, job=mode == "job"))
    with ExitStack() as stack:
        stack.enter_context(sole(options.state))
        context = open_context(options, environment, job=True)
        need_signer(context)
        restore_if_behind(context)
        done = do(context)
        loop = Loop(context, options, environment, _unwatched, stack)
        result = loop.publish()
        if result.outcome not in ("pushed", "nothing_new"):
            raise Refused(
                f"{done.text}; but only in {options.state}: the record was not written "
                f"({result.outcome}: {result.reason}). It holds on this machine; the next job that "
                "uses this state directory tries to write it again."
            )
        return done


def _unwatched(context: Context, progress: Progress) -> None:
    """Nobody is shown the progress of a single operation."""
