"""What a text from libgit2, git or a server means: what to tell the person, and whether to retry.

Servers and libgit2 answer in prose only. This is the one place that reads it; everything it does
not know is not retried by itself.
"""

from __future__ import annotations

_RETRYABLE_REFUSALS = (
    "fetch first",
    "non-fast-forward",
    "non-fastforward",
    "not present locally",
    "cannot lock ref",
    "failed to lock",
    "incorrect old value",
    "reference already exists",
    "failed to update ref",
    "stale info",
    "unable to migrate objects",
    "atomic transaction failed",  # what `--atomic` makes of a lock or an old value
)
"""A refused ref update that another fetch, rebuild and push can cure: somebody was faster."""

_CAUSES: tuple[tuple[tuple[str, ...], bool, str], ...] = (
    (
        ("authentication failed", "authentication required", "401", "403", "no auth", "credential"),
        False,
        "check the token or key and that it may read (and, for reports, write) this repository",
    ),
    (
        (
            "404",
            "not found",
            "does not exist",
            "failed to resolve path",
            "could not find repository",
        ),
        False,
        "check the address, and that the credentials may see the repository",
    ),
    (
        ("not owned by current user",),
        False,
        "run as the owner of that directory, or add it to git's safe.directory",
    ),
    (
        ("certificate", "ssl error", "hostkey", "host key"),
        False,
        "the server's identity could not be proved; install its CA (SSL_CERT_FILE) or known_hosts",
    ),
    (
        ("invalid packet line",),  # what libgit2 makes of the `shallow` lines of protocol v0
        False,
        "is that repository a shallow clone? a full history is needed (git fetch --unshallow)",
    ),
    (
        ("unsupported url", "malformed", "invalid url"),
        False,
        "use an https://, ssh:// or file:// address, or a path",
    ),
    (
        ("timed out", "timeout"),
        True,
        "the remote went silent; look whether the host is up and the network path is open",
    ),
    (
        ("failed to connect", "connection refused", "failed to resolve", "could not resolve"),
        True,
        "look whether the host is up, and check the address and the proxy settings",
    ),
    (
        ("unexpected http status code: 5", "unexpected http status code: 429"),
        True,
        "the server failed; its own log says why",
    ),
    (
        ("connection reset", "closed", "eof", "early end", "broken pipe", "end of file"),
        True,
        "the connection broke; it will be tried again",
    ),
)


def refusal_is_retryable(text: str) -> bool:
    """Whether a server's refusal of a ref update means only that we were too late."""
    lowered = text.lower()
    return any(known in lowered for known in _RETRYABLE_REFUSALS)


def explain(text: str) -> tuple[str, bool]:
    """(one line that says what happened and what to do, whether trying again may help)."""
    line = " ".join(text.split()) or "no reason given"
    lowered = line.lower()
    if refusal_is_retryable(line):
        return line, True
    for needles, retryable, advice in _CAUSES:
        if any(needle in lowered for needle in needles):
            return f"{line}; {advice}", retryable
    return f"{line}; try `git ls-remote` with the same address to see more", False
