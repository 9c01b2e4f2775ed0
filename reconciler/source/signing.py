"""SSH signatures on commits: who wrote a state that a fresh machine will believe.

The format is OpenSSH's SSHSIG in the commit's `gpgsig` header with namespace "git", so that
`git verify-commit` and forges check our commits with their own means
(https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig). `ssh-keygen` does the
cryptography; nothing here touches a private key but by its path.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from reconciler.source.errors import SigningFailed

NAMESPACE = "git"
_PRINCIPAL = "interlock"
_KEY = re.compile(r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*")
_ARMOUR = re.compile(r"-----BEGIN SSH SIGNATURE-----\s(.*?)-----END SSH SIGNATURE-----", re.DOTALL)
_SECONDS = 30
"""ssh-keygen answers in milliseconds; an agent or a hardware key that asks must not hang a tick."""


class SignatureStatus(StrEnum):
    """`good` only if the signature holds *and* its key is allowed. Everything else is a no."""

    GOOD = "good"
    UNKNOWN_SIGNER = "unknown_signer"
    UNSIGNED = "unsigned"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Verification:
    """A commit's signature, judged. `key` is the public key it claims, as `type base64`."""

    status: SignatureStatus
    key: str | None = None

    @property
    def good(self) -> bool:
        return self.status is SignatureStatus.GOOD


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with the unencrypted SSH key at `key_path` (or its public half, via an agent)."""

    key_path: Path

    def sign(self, payload: bytes) -> str:
        """The armoured SSHSIG over `payload`. SigningFailed says what ssh-keygen said."""
        if not self.key_path.is_file():
            raise SigningFailed(
                f"no signing key at {self.key_path}; make one with "
                f"`ssh-keygen -t ed25519 -f {self.key_path}` and name its public half in "
                "interlock.yaml (signers)"
            )
        done = _ssh_keygen("-Y", "sign", "-n", NAMESPACE, "-f", str(self.key_path), stdin=payload)
        signature = done.stdout.decode(errors="replace")
        if done.returncode != 0 or "BEGIN SSH SIGNATURE" not in signature:
            raise SigningFailed(f"signing with {self.key_path} failed: {_said(done)}")
        return signature


def generate_key(path: Path) -> Signer:
    """A new ed25519 key without a passphrase, mode 600; its public half in `path`.pub.

    SigningFailed when there is a key already: replacing one orphans every signature it made.
    """
    if path.exists():
        raise SigningFailed(f"there is a key at {path} already; it is not replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", _PRINCIPAL, "-f", str(path))
    if done.returncode != 0:
        raise SigningFailed(f"no key could be made at {path}: {_said(done)}")
    return Signer(path)


def public_key(path: Path) -> str:
    """The public half of the private key at `path`, as `type base64`, without a comment."""
    done = _ssh_keygen("-y", "-P", "", "-f", str(path))
    if done.returncode != 0:
        raise SigningFailed(f"{path} is not a readable private key: {_said(done)}")
    return normal_key(done.stdout.decode())


def normal_key(text: str) -> str:
    """`type base64` of a public key line as people paste it. ValueError if it is none.

    Strict, because the text goes into a file in which a second line or an option would be
    another permission.
    """
    found = _KEY.match(text.strip())
    if found is None or "\n" in text.strip():
        raise ValueError(
            f"not an SSH public key: {text.strip()[:60]!r} (expected e.g. 'ssh-ed25519 AAAA…')"
        )
    return found.group()


def verify(payload: bytes, signature: str | None, allowed: Sequence[str]) -> Verification:
    """Judge `signature` over `payload` against the allowed public keys.

    ValueError when an allowed key is malformed; SigningFailed without ssh-keygen.
    """
    keys = [normal_key(key) for key in allowed]
    if not signature:
        return Verification(SignatureStatus.UNSIGNED)
    claimed = signing_key(signature)
    if claimed is None:
        # PGP, X.509 or garbage: signed, but by nobody that an SSH key list can name.
        other = "BEGIN PGP" in signature or "BEGIN SIGNED" in signature
        return Verification(SignatureStatus.UNKNOWN_SIGNER if other else SignatureStatus.BAD)
    with tempfile.TemporaryDirectory(prefix="interlock-verify-") as folder:
        proof = Path(folder, "signature")
        proof.write_text(signature if signature.endswith("\n") else signature + "\n")
        signers = Path(folder, "allowed")
        signers.write_text("".join(f'{_PRINCIPAL} namespaces="{NAMESPACE}" {k}\n' for k in keys))
        on = ("-n", NAMESPACE, "-s", str(proof))
        if claimed in keys:
            who = ("-I", _PRINCIPAL, "-f", str(signers))
            holds = _ssh_keygen("-Y", "verify", *who, *on, stdin=payload).returncode == 0
            status = SignatureStatus.GOOD if holds else SignatureStatus.BAD
        else:
            holds = _ssh_keygen("-Y", "check-novalidate", *on, stdin=payload).returncode == 0
            status = SignatureStatus.UNKNOWN_SIGNER if holds else SignatureStatus.BAD
    return Verification(status, claimed)


def signing_key(signature: str) -> str | None:
    """The public key that an armoured SSHSIG claims, as `type base64`; None if it is no SSHSIG."""
    body = _ARMOUR.fullmatch(signature.strip())
    if body is None:
        return None
    try:
        blob = base64.b64decode("".join(body.group(1).split()), validate=True)
    except binascii.Error:
        return None
    if blob[:6] != b"SSHSIG" or len(blob) < 14:
        return None
    length = int.from_bytes(blob[10:14])
    key = blob[14 : 14 + length]
    kind = key[4 : 4 + int.from_bytes(key[:4])].decode("ascii", "replace")
    text = f"{kind} {base64.b64encode(key).decode()}"
    return text if len(key) == length and _KEY.fullmatch(text) else None


def _ssh_keygen(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            timeout=_SECONDS,
            # Never ask a person: no askpass dialogue, no terminal.
            env={**os.environ, "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"},
            start_new_session=True,
        )
    except FileNotFoundError:
        raise SigningFailed(
            "ssh-keygen was not found; install openssh-client (apt-get install openssh-client)"
        ) from None
    except subprocess.TimeoutExpired:
        raise SigningFailed(
            f"ssh-keygen did not answer within {_SECONDS} s; is the key waiting for a passphrase?"
        ) from None


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return " ".join(done.stderr.decode(errors="replace").split()) or f"exit code {done.returncode}"
