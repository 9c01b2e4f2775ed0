"""What this machine must have, asked for by using it: a version number proves nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.process.supervisor import gateway_url
from runner.sandbox.images import default_reference, engine_version, image_id


@dataclass(frozen=True, slots=True)
class Check:
    """One need: what was seen, and what to do when it is not met."""

    what: str
    ok: bool
    seen: str
    fix: str = ""


def examine(state: Path, environment: Mapping[str, str]) -> list[Check]:
    """All checks, the most basic first. Never raises: what cannot be asked is not there."""
    engine = engine_version()
    image = image_id(default_reference()) if engine else None
    keys = sorted(n for n in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY") if environment.get(n))
    return [
        Check(
            "python",
            sys.version_info >= (3, 11),
            ".".join(map(str, sys.version_info[:3])),
            "install Python 3.11 or newer",
        ),
        _program("git", "--version", "apt-get install git"),
        _program("ssh-keygen", "-?", "apt-get install openssh-client"),
        Check(
            "docker engine",
            engine is not None,
            engine or "no engine answers",
            "`make setup` installs and starts it (as root), or see docs.docker.com/engine/install",
        ),
        Check(
            "sandbox image",
            image is not None,
            str(image)[:19] if image else f"no image {default_reference()}",
            "`make setup` pulls or builds it",
        ),
        Check("state directory", *_writable(state)),
        Check("gateway", True, gateway_url(state) or "not running (started when needed)"),
        Check("provider keys", True, ", ".join(keys) or "none (the offline model needs none)"),
    ]


def _program(name: str, flag: str, fix: str) -> Check:
    path = shutil.which(name)
    if path is None:
        return Check(name, False, "not on the path", fix)
    done = subprocess.run([path, flag], capture_output=True, text=True, check=False)
    first = (done.stdout or done.stderr).strip().splitlines()
    return Check(name, True, first[0] if name == "git" and first else path)


def _writable(state: Path) -> tuple[bool, str, str]:
    try:
        state.mkdir(parents=True, exist_ok=True)
        probe = state / ".doctor"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        return False, f"{state}: {error.strerror}", "give --state a directory you may write to"
    return True, str(state), ""
