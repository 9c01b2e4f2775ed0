"""Several writers, one branch: fetch, build on what is there, push, and again if too late."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reconciler.source.errors import RemoteUnavailable
from reconciler.source.mirror import Mirror, full_ref
from reconciler.source.objects import CommitId
from reconciler.source.push import PushOutcome, PushResult

Build = Callable[[CommitId | None], CommitId]
"""Makes the commit on top of the branch's head (None: the branch does not exist yet).

Called again with a newer head when somebody was faster; returns the head itself when there is
nothing to write. Must be free of effects other than writing objects.
"""


def backoff_delays(
    draw: Callable[[], float], *, first: float = 1.0, factor: float = 1.5, cap: float = 30.0
) -> Iterator[float]:
    """Seconds to wait before each retry: full steps of ×`factor` up to `cap`, jittered by ±50 %.

    `draw` gives uniform numbers in [0, 1). The jitter is what keeps racing writers from meeting
    again at every attempt; the cap holds for the jittered value too.
    """
    delay = first
    while True:
        yield min(cap, delay * (0.5 + draw()))
        delay = min(cap, delay * factor)


def integrate_and_push(
    mirror: Mirror,
    branch: str,
    build: Build,
    *,
    delays: Iterator[float],
    sleep: Callable[[float], None],
    attempts: int = 10,
) -> tuple[PushResult, CommitId | None]:
    """Push what `build` makes onto `branch`, whoever else writes to it.

    Returns the last result and the commit it is about (None: the remote was never reached).
    After an `unknown` push the same commit is offered again rather than rebuilt: if the first
    attempt arrived after all, the second finds it there, and nothing is written twice.
    """
    ref = full_ref(branch)
    result = PushResult(PushOutcome.REJECTED, "not tried", True)
    commit: CommitId | None = None
    built_on: CommitId | None = None
    for attempt in range(attempts):
        if attempt:
            sleep(next(delays))
        try:
            head = mirror.fetch().get(ref)
        except RemoteUnavailable as error:
            if result.outcome is not PushOutcome.UNKNOWN:
                result = PushResult(PushOutcome.REJECTED, str(error), error.retryable)
            if not error.retryable:
                break
            continue
        if commit is not None and head is not None and mirror.is_ancestor(commit, head):
            return PushResult(PushOutcome.PUSHED, remote={ref: head}), commit
        if result.outcome is not PushOutcome.UNKNOWN or head != built_on:
            commit = build(head)
            built_on = head
        if commit == head:
            return PushResult(PushOutcome.PUSHED, "nothing to write", remote={ref: head}), commit
        assert commit is not None
        result = mirror.push({ref: (built_on, commit)})
        if result.pushed or not result.retryable:
            break
    return result, commit
