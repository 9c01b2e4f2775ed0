"""Signatures: ours hold for git too, and a forged, foreign or altered commit is told apart."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gateway.values import Millis
from reconciler.source import (
    CommitId,
    Mirror,
    SignatureStatus,
    Signer,
    SigningFailed,
    generate_key,
    public_key,
)
from reconciler.source.signing import normal_key, signing_key, verify

WHEN = Millis(1_700_000_000_000)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", str(remote)], check=True)
    return Mirror.open_or_clone(str(remote), tmp_path / "mirror")


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return generate_key(tmp_path / "keys" / "reconciler")


def commit(mirror: Mirror, signer: Signer | None, text: str = "state") -> CommitId:
    return mirror.write_commit(None, {"state/x": b"1"}, message=text, when_ms=WHEN, signer=signer)


def test_a_signed_commit_is_good_for_us_and_for_git(
    mirror: Mirror, signer: Signer, tmp_path: Path
) -> None:
    key = public_key(signer.key_path)
    made = commit(mirror, signer, "Prüfung: state at 12:00\n\nwith a body")
    judged = mirror.verify_commit(made, ["ssh-ed25519 " + "A" * 68, key + " comment@host"])
    assert (judged.status, judged.key, judged.good) == (SignatureStatus.GOOD, key, True)
    allowed = tmp_path / "allowed"
    allowed.write_text(f'reconciler@interlock.invalid namespaces="git" {key}\n')
    config = ["-c", f"gpg.ssh.allowedSignersFile={allowed}", "-c", "gpg.format=ssh"]
    seen = subprocess.run(
        ["git", "-C", str(mirror.path), *config, "verify-commit", "-v", made],
        capture_output=True,
        text=True,
        check=False,
    )
    assert seen.returncode == 0, seen.stderr
    assert 'Good "git" signature for reconciler@interlock.invalid' in seen.stderr
    log = subprocess.run(
        ["git", "-C", str(mirror.path), *config, "log", "-1", "--format=%G? %GS", made],
        capture_output=True,
        text=True,
        check=True,
    )
    assert log.stdout.strip() == "G reconciler@interlock.invalid"
    fsck = ["git", "-C", str(mirror.path), "fsck", "--strict"]
    assert subprocess.run(fsck, capture_output=True, check=False).returncode == 0


def test_what_git_signs_is_good_for_us(mirror: Mirror, signer: Signer, tmp_path: Path) -> None:
    work = tmp_path / "work"
    subprocess.run(["git", "init", "-q", "-b", "main", str(work)], check=True)
    config = ["-c", "gpg.format=ssh", "-c", f"user.signingkey={signer.key_path}"]
    run = ["git", "-C", str(work), *config, "commit", "-q", "-S", "--allow-empty", "-m", "by git"]
    subprocess.run(run, check=True)
    subprocess.run(["git", "-C", str(work), "push", "-q", mirror.url, "main"], check=True)
    head = mirror.fetch()["refs/heads/main"]
    assert mirror.verify_commit(head, [public_key(signer.key_path)]).good


def test_a_foreign_signer_is_unknown_and_named(
    mirror: Mirror, signer: Signer, tmp_path: Path
) -> None:
    forger = generate_key(tmp_path / "forger")
    judged = mirror.verify_commit(commit(mirror, forger), [public_key(signer.key_path)])
    assert judged.status is SignatureStatus.UNKNOWN_SIGNER
    assert judged.key == public_key(forger.key_path)
    nobody = mirror.verify_commit(commit(mirror, signer), [])
    assert nobody.status is SignatureStatus.UNKNOWN_SIGNER


def test_an_unsigned_commit_is_unsigned(mirror: Mirror, signer: Signer) -> None:
    judged = mirror.verify_commit(commit(mirror, None), [public_key(signer.key_path)])
    assert (judged.status, judged.key) == (SignatureStatus.UNSIGNED, None)


def test_a_signature_moved_onto_another_text_is_bad(signer: Signer, tmp_path: Path) -> None:
    signature = signer.sign(b"what was signed")
    key = public_key(signer.key_path)
    assert verify(b"what was signed", signature, [key]).status is SignatureStatus.GOOD
    assert verify(b"what was not", signature, [key]).status is SignatureStatus.BAD
    other = public_key(generate_key(tmp_path / "other").key_path)
    assert verify(b"what was not", signature, [other]).status is SignatureStatus.BAD


def test_a_signature_for_another_purpose_is_bad(signer: Signer) -> None:
    made = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(signer.key_path)],
        input=b"payload",
        capture_output=True,
        check=True,
    )
    key = public_key(signer.key_path)
    assert verify(b"payload", made.stdout.decode(), [key]).status is SignatureStatus.BAD


@pytest.mark.parametrize(
    "signature, status",
    [
        ("", SignatureStatus.UNSIGNED),
        ("garbage", SignatureStatus.BAD),
        (
            "-----BEGIN SSH SIGNATURE-----\n!!\n-----END SSH SIGNATURE-----",
            SignatureStatus.BAD,
        ),
        (
            "-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAf////8=\n-----END SSH SIGNATURE-----",
            SignatureStatus.BAD,
        ),
        ("-----BEGIN PGP SIGNATURE-----\nx\n", SignatureStatus.UNKNOWN_SIGNER),
    ],
)
def test_what_is_no_ssh_signature_is_never_good(signature: str, status: SignatureStatus) -> None:
    assert verify(b"payload", signature, ["ssh-ed25519 AAAA"]).status is status
    assert signing_key(signature) is None


@pytest.mark.parametrize(
    "text", ["", "hello", "ssh-ed25519", "* ssh-ed25519 AAAA", "ssh-ed25519 AAAA\nroot ssh-rsa BB"]
)
def test_an_allowed_key_cannot_smuggle_in_another(text: str) -> None:
    with pytest.raises(ValueError, match="not an SSH public key"):
        normal_key(text)


def test_a_key_is_private_and_never_replaced(signer: Signer) -> None:
    assert signer.key_path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SigningFailed, match="not replaced"):
        generate_key(signer.key_path)


def test_a_missing_key_or_tool_says_what_to_do(
    tmp_path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SigningFailed, match="ssh-keygen -t ed25519"):
        Signer(tmp_path / "absent").sign(b"x")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SigningFailed, match="openssh-client"):
        signer.sign(b"x")
