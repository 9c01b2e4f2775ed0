"""The child process that talks to a remote: one request on stdin, JSON lines on stdout, the end.

Why a process: see `reconciler.source.remote`, its only caller. Besides the parent's deadline it
carries one of its own (SIGALRM's default action ends it even inside C), so that a transfer does
not outlive a parent that was killed.

Operations: `heads` (what the remote has), `fetch` (bring the mirror up to date; a bare mirror's
`refs/heads/*` are the remote's), `push` (compare-and-swap, fast-forward).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pygit2
from pygit2 import Passthrough, RemoteCallbacks
from pygit2.enums import CredentialType

from reconciler.source.diagnosis import explain

Heads = dict[str, str]
NOTHING = "0" * 40


class Moved(Exception):
    """The remote is not where the caller expects it: {ref: what it has}."""


def say(line: Mapping[str, Any]) -> None:
    """One line to the parent, at once: it must survive our being killed."""
    os.write(1, json.dumps(line).encode() + b"\n")


class Conversation(RemoteCallbacks):
    """Credentials in, the server's word on each pushed ref out."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        super().__init__()
        self._request = request
        self._asked = 0
        self.expected: Mapping[str, str] = {}
        self.verdicts: dict[str, str | None] = {}
        self.moved: Heads = {}

    def credentials(
        self, url: str, username_from_url: str | None, allowed_types: CredentialType
    ) -> Any:
        """Asked again after a refusal, and twice by a push without one: so three times, not one."""
        self._asked += 1
        if self._asked > 3:
            raise pygit2.GitError("authentication failed: the credentials were refused")
        name = self._request["username"] or username_from_url
        if allowed_types & CredentialType.USERNAME:
            return pygit2.Username(name or "git")
        if allowed_types & CredentialType.SSH_KEY:
            key = self._request["ssh_key"]
            if key:
                return pygit2.Keypair(name or "git", f"{key}.pub", key, "")
            return pygit2.KeypairFromAgent(name or "git")
        if allowed_types & CredentialType.USERPASS_PLAINTEXT and self._request["secret"]:
            if urlsplit(url).netloc.rpartition("@")[2] != urlsplit(self._request["url"]).netloc:
                raise pygit2.GitError(
                    f"authentication failed: redirected to {urlsplit(url).netloc}, "
                    "which the token is not for"
                )
            return pygit2.UserPass(name or "x-access-token", self._request["secret"])
        raise Passthrough

    def push_negotiation(self, updates: list[Any]) -> None:
        """The last moment before anything is sent. `src` is what the remote has *now*.

        The server compares the same value again under its lock, which is what makes the push a
        compare-and-swap: between here and there nobody can slip in unnoticed.
        """
        for update in updates:
            has = str(update.src)
            if has != (self.expected.get(update.dst_refname) or NOTHING):
                self.moved[update.dst_refname] = "" if has == NOTHING else has
        if self.moved:
            raise Moved
        say({"stage": "sending"})

    def push_update_reference(self, refname: str, message: str | None) -> None:
        """The server's word. Collected, never raised: libgit2 swallows exceptions from here."""
        self.verdicts[refname] = message


def main() -> None:
    """Read one request, do it, answer. Exit code 0 even for a failure that was told."""
    request = json.load(sys.stdin)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, request["total_ms"] / 1000)
    pygit2.settings.server_connect_timeout = request["connect_ms"]
    pygit2.settings.server_timeout = request["silence_ms"]
    operation = {"heads": heads, "fetch": fetch, "push": push}[request["op"]]
    try:
        answer = operation(request)
    except (pygit2.GitError, OSError, ValueError, KeyError) as error:
        text = str(error)
        if request["secret"]:
            text = text.replace(request["secret"], "***")
        reason, retryable = explain(text)
        say({"failure": reason, "retryable": retryable})
    else:
        say({"answer": answer})


def _open(request: Mapping[str, Any]) -> tuple[pygit2.Repository, Any]:
    repository = pygit2.Repository(request["mirror"])
    return repository, repository.remotes.create_anonymous(request["local"] or request["url"])


def _listed(remote: Any, callbacks: Conversation) -> tuple[Heads, str]:
    """({ref: oid}, default branch's ref or "")."""
    rows = remote.list_heads(callbacks=callbacks, proxy=True)
    refs = {row.name: str(row.oid) for row in rows if row.name and row.name.startswith("refs/")}
    default = next((row.symref_target or "" for row in rows if row.name == "HEAD"), "")
    return refs, default


def heads(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Every ref the remote advertises, without fetching."""
    _, remote = _open(request)
    refs, default = _listed(remote, Conversation(request))
    return {"refs": refs, "default": default}


def fetch(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make the mirror's refs under `refs` (prefixes) equal to the remote's."""
    repository, remote = _open(request)
    if request["local"] and pygit2.Repository(request["local"]).is_shallow:
        return {"shallow": True}
    prefixes = tuple(request["refs"])
    advertised, default = _listed(remote, Conversation(request))
    wanted = {ref: oid for ref, oid in advertised.items() if ref.startswith(prefixes)}
    have = {
        ref: str(repository.references[ref].target)
        for ref in repository.references
        if ref.startswith(prefixes)
    }
    # First what is gone: a branch `a` would stand in the way of a new branch `a/b`.
    for ref in have.keys() - wanted.keys():
        repository.references.delete(ref)
    changed = {ref: oid for ref, oid in wanted.items() if have.get(ref) != oid}
    if changed:
        specs = [f"+{prefix}*:{prefix}*" for prefix in prefixes]
        remote.fetch(refspecs=specs, callbacks=Conversation(request), proxy=True)
    if default:
        repository.set_head(default)
    if repository.is_shallow or (request["first"] and _cut_off(repository)):
        return {"shallow": True}
    now = {
        ref: str(repository.references[ref].target)
        for ref in repository.references
        if ref.startswith(prefixes)
    }
    repository.free()
    return {"refs": now, "default": default}


def _cut_off(repository: pygit2.Repository) -> bool:
    """Whether some commit's parent is missing: the remote itself was a shallow clone."""
    walker = repository.walk(None)
    for ref in repository.references:
        target = repository.references[ref].target
        if isinstance(target, pygit2.Oid):
            walker.push(target)
    try:
        for _ in walker:
            pass
    except (KeyError, pygit2.GitError):
        return True
    return False


def push(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Push {ref: {old, new}}; answers {moved} or {refused: {ref: text}}, and {remote} after."""
    callbacks = Conversation(request)
    callbacks.expected = {ref: update["old"] for ref, update in request["updates"].items()}
    wanted = {ref: update["new"] for ref, update in request["updates"].items()}
    _, remote = _open(request)
    before, _ = _listed(remote, callbacks)
    already = all(before.get(ref) == new for ref, new in wanted.items())
    expected = callbacks.expected.items()
    moved = {ref: before.get(ref, "") for ref, old in expected if before.get(ref, "") != old}
    if moved or already:
        return {"moved": {} if already else moved, "refused": {}, "remote": _only(before, wanted)}
    if request["local"]:
        refused = _push_here(request)
    else:
        sender = _open(request)[1]
        try:
            sender.push([f"{new}:{ref}" for ref, new in wanted.items()], callbacks, proxy=True)
        except Moved:
            return {"moved": callbacks.moved, "refused": {}, "remote": _only(before, wanted)}
        # A ref without a word from the server was not updated: silence is not consent.
        said = callbacks.verdicts
        refused = {r: said.get(r, "no report from the server") or "" for r in wanted}
        refused = {ref: text for ref, text in refused.items() if text}
    after, _ = _listed(_open(request)[1], Conversation(request))
    return {"moved": {}, "refused": refused, "remote": _only(after, wanted)}


def _only(refs: Heads, wanted: Mapping[str, str]) -> Heads:
    return {ref: refs.get(ref, "") for ref in wanted}


def _push_here(request: Mapping[str, Any]) -> Mapping[str, str]:
    """To a repository on this machine, through git itself.

    libgit2's local transport sets the refs directly: no hook runs and nothing is compared under
    the lock. git's own receive-pack does both.
    """
    command = ["git", "-C", request["mirror"], "push", "--porcelain", "--atomic", "--no-verify"]
    for ref, update in request["updates"].items():
        command.append(f"--force-with-lease={ref}:{update['old']}")
    command += ["--", str(Path(request["local"]).resolve())]
    command += [f"{update['new']}:{ref}" for ref, update in request["updates"].items()]
    say({"stage": "sending"})
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
    )
    refused: dict[str, str] = {}
    reported: set[str] = set()
    for line in done.stdout.splitlines():
        flag, _, rest = line.partition("\t")
        names, _, summary = rest.partition("\t")
        ref = names.rpartition(":")[2]
        if ref in request["updates"]:
            reported.add(ref)
            if flag == "!":
                refused[ref] = summary
    if reported != set(request["updates"]):
        last = done.stderr.strip().splitlines()[-1:] or ["git push said nothing"]
        raise OSError(f"git push: {last[0]}")
    return refused


if __name__ == "__main__":
    main()
