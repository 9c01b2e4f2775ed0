"""What it means that an attempt failed: for the money, for the client, and for what comes next.

Whether a failed attempt costs anything is decided here: an attempt is given back only when the
other side surely did nothing.
"""

from __future__ import annotations

from gateway.refusals import Code


class Failure(Exception):
    """An attempt that gave no (whole) answer.

    `done` says whether the other side may have worked, and so charged, for it: then the attempt
    is `unknown`, else `released`. `code` is what the client hears when no target is left.
    `fallback` False: another target would say the same. `status` is the HTTP status that the other
    side answered with; None when it did not. `begun`: the client has seen a part of the answer, so
    nothing else may follow it. `retry_after` is in seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        done: bool,
        code: Code = Code.PROVIDER_ERROR,
        fallback: bool = True,
        retry_after: int | None = None,
        status: int | None = None,
        begun: bool = False,
        blameless: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.done = done
        self.code = code
        self.fallback = fallback
        self.retry_after = retry_after
        self.status = status
        self.begun = begun
        self.blameless = blameless


def failure_of_status(status: int, where: str, text: str, retry_after: int | None) -> Failure:
    """What an HTTP error status of a provider means.

    429, 500, 503 and 529 (Anthropic: overloaded) are the provider saying that it did not do the
    work. 502 and 504 come from a proxy in front of it that lost the answer: the work may have
    been done and charged. Other 4xx are final, and the same everywhere, except 401, 403, 404 and
    408 which say that *this* target is unusable. A Retry-After is heard with whatever status it
    comes.
    """
    if status == 429:
        return Failure(
            f"{where} is rate limited",
            done=False,
            code=Code.PROVIDER_BUSY,
            retry_after=retry_after,
            status=status,
        )
    if status in (401, 403):
        # The body is not repeated: providers quote parts of the key in it.
        return Failure(
            f"{where} refused the gateway's key (HTTP {status})", done=False, status=status
        )
    if status in (404, 408):
        return Failure(f"{where} answered HTTP {status}: {text}", done=False, status=status)
    if 400 <= status < 500:
        return Failure(
            f"{where} refused the request (HTTP {status}): {text}",
            done=False,
            code=Code.INVALID_REQUEST,
            fallback=False,
            status=status,
        )
    return Failure(
        f"{where} answered HTTP {status}: {text}",
        done=status in (502, 504),
        retry_after=retry_after,
        status=status,
    )
