"""The parent's side of every network call: a child process that can be killed.

libgit2 blocks in C and may never come back (a remote that accepts and then says nothing), so no
network call happens in this process. Each one runs `python -m reconciler.source.transfer` with a
request on stdin and JSON lines on stdout, and a deadline after which the child and what it
started are killed. Credentials travel on stdin only: never in the argument list (visible to
every user), the environment (inherited by hooks), a URL or an error text.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from reconciler.source.errors import RemoteUnavailable, ShallowHistory

_INHERITED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR"),
        *("XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "SSH_AUTH_SOCK"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    }
)
"""An allowlist: a local remote's hooks run below the child and must not see provider keys."""


@dataclass(frozen=True, kw_only=True)
class Auth:
    """How to prove who we are. All optional; an SSH agent is asked when there is no key.

    `token` is called once per network operation, so that short-lived tokens stay fresh. It is
    sent as HTTP basic authentication with `username` (GitHub and GitLab accept any name), and
    only to the host of the configured URL, wherever that redirects to.
    """

    token: Callable[[], str] | None = field(default=None, repr=False)
    username: str | None = None
    ssh_key: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Milliseconds: to connect, of silence on an open connection, and of the whole operation."""

    connect_ms: int = 10_000
    silence_ms: int = 60_000
    total_ms: int = 300_000


@dataclass(frozen=True)
class Remote:
    """Where, as whom, how long. `url` is safe to show: user information is cut off it."""

    url: str
    auth: Auth
    timeouts: Timeouts

    @classmethod
    def of(cls, url: str, *, auth: Auth | None, timeouts: Timeouts | None) -> Remote:
        """Accepts what `git clone` accepts. `https://user:token@host/…` is taken apart."""
        auth = auth or Auth()
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and "@" in parts.netloc:
            login, _, host = parts.netloc.rpartition("@")
            user, _, secret = (unquote(part) for part in login.partition(":"))
            # A lone user name before the host is how tokens are pasted, too.
            user, secret = (user, secret) if secret else ("", user)
            if auth.token is None and secret:
                auth = Auth(token=lambda: secret, username=user or None, ssh_key=auth.ssh_key)
            url = urlunsplit(parts._replace(netloc=host))
        return cls(url, auth, timeouts or Timeouts())

    @property
    def local_path(self) -> Path | None:
        """The directory, when the remote is one on this machine (a path or file://)."""
        parts = urlsplit(self.url)
        if parts.scheme == "file":
            return Path(unquote(parts.path))
        if parts.scheme == "" and (self.url.startswith(("/", ".")) or Path(self.url).is_dir()):
            return Path(self.url)
        return None


@dataclass(frozen=True)
class Conversation:
    """What the child said before it ended.

    `sending` is true once a push has begun to send: from then on silence proves nothing.
    """

    answer: Mapping[str, Any] | None
    failure: str
    retryable: bool
    sending: bool


def converse(remote: Remote, request: Mapping[str, Any]) -> Conversation:
    """Run one operation in a child. Never raises for the remote's faults; see `ask`."""
    local = remote.local_path
    secret = remote.auth.token() if remote.auth.token and local is None else ""
    message = {
        **request,
        "url": remote.url,
        "local": str(local) if local else "",
        "username": remote.auth.username or "",
        "secret": secret,
        "ssh_key": str(remote.auth.ssh_key or ""),
        "connect_ms": remote.timeouts.connect_ms,
        "silence_ms": remote.timeouts.silence_ms,
        "total_ms": remote.timeouts.total_ms,
    }
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "reconciler.source.transfer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        start_new_session=True,  # one group to kill: git and its hooks go with the child
    )
    timed_out = False
    try:
        output, errors = child.communicate(
            json.dumps(message).encode(), timeout=remote.timeouts.total_ms / 1000
        )
    except subprocess.TimeoutExpired:
        timed_out = True
        _kill_group(child)
        output, errors = child.communicate()
    except BaseException:
        _kill_group(child)
        child.communicate()
        raise
    lines = _lines(output)
    sending = any(line.get("stage") == "sending" for line in lines)
    answer = next((line["answer"] for line in lines if "answer" in line), None)
    problem = next((line for line in lines if "failure" in line), None)
    if answer is not None:
        return Conversation(answer, "", False, sending)
    if problem is not None:
        text, retryable = str(problem["failure"]), bool(problem["retryable"])
    elif timed_out or child.returncode == -signal.SIGALRM:
        text = (
            f"no answer within {remote.timeouts.total_ms / 1000:g} s; the transfer was stopped. "
            "Look whether the host is up and the network path is open"
        )
        retryable = True
    else:
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        text = f"the transfer process ended with {child.returncode} ({' '.join(last)})"
        retryable = False
    if secret:
        text = text.replace(secret, "***")
    return Conversation(None, text, retryable, sending)


def ask(remote: Remote, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """As `converse`, for what only reads. Raises RemoteUnavailable, ShallowHistory."""
    said = converse(remote, request)
    if said.answer is None:
        raise RemoteUnavailable(remote.url, said.failure, retryable=said.retryable)
    if said.answer.get("shallow"):
        raise ShallowHistory(remote.url)
    return said.answer


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in _INHERITED}
    kept["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    return kept


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    # Not yet waited for, so the number cannot have been given to another process.
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


def _lines(output: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in output.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue  # cut off by the kill
        if isinstance(value, dict):
            found.append(value)
    return found
