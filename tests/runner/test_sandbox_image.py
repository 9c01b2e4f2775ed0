"""build.sh decides between the image that is there, a registry and a local build.

The script is real; `docker` and `debootstrap` are stand-ins that write down how they were called,
because a test can neither reach a registry nor want to wait for a Debian root.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

IMAGE = Path(__file__).resolve().parents[2] / "runner" / "sandbox" / "image"
PINS = dict(
    line.split("=", 1)
    for line in (IMAGE / "image.env").read_text().splitlines()
    if line and not line.startswith("#")
)
DIGEST = PINS["BASE"].split("@")[1]

DOCKER = r"""#!/bin/bash
echo "$*" >>"$STAGE/calls"
case "$1 $2" in
  "info "*) [[ $ENGINE == up ]] ;;
  "image inspect")
    [[ -s $STAGE/image ]] || exit 1
    if [[ $4 == *RepoDigests* ]]; then cat "$STAGE/image"; else echo sha256:feed; fi ;;
  "image rm") rm "$STAGE/image" ;;
  "pull "*)
    case $REGISTRY in
      up) echo Pulling from library/python; echo Status: done ;;
      broken) echo Pulling from library/python; exit 1 ;;
      silent) exec sleep 60 ;;
      gone) echo 'Error response from daemon: Get "x": no such host' >&2; exit 1 ;;
    esac ;;
  "tag "*) echo "$2 |" >"$STAGE/image" ;;
  "import "*)
    for each; do [[ $each == LABEL* ]] && echo "|${each#*=}" >"$STAGE/image"; done
    tar -t >"$STAGE/listing" ;;
  "run "*) [[ $RUNS == yes ]] ;;
esac
"""

DEBOOTSTRAP = r"""#!/bin/bash
echo "debootstrap $*" >>"$STAGE/calls"
mkdir -p "$4/etc" "$4/usr/bin" "$4/var/cache/apt"
touch "$4/etc/resolv.conf" "$4/usr/bin/python3" "$4/var/cache/apt/git.deb"
"""


@dataclass(frozen=True)
class Stage:
    """A folder of stand-ins in front of PATH."""

    folder: Path

    def build(self, *arguments: str, **machine: str) -> subprocess.CompletedProcess[str]:
        """Runs the script; `machine` overrides what the stand-ins find: all is well by default."""
        return subprocess.run(
            [IMAGE / "build.sh", *arguments],
            env={
                "PATH": f"{self.folder}:{os.environ['PATH']}",
                "STAGE": str(self.folder),
                "INTERLOCK_REGISTRY_WAIT": "0.3",
                "ENGINE": "up",
                "REGISTRY": "up",
                "RUNS": "yes",
                **machine,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self, verb: str) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if line.startswith(verb)]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stand_ins = {
        "docker": DOCKER,
        "debootstrap": DEBOOTSTRAP,
        "id": "#!/bin/sh\necho 0\n",  # a build needs root; the stand-ins do not
        "apt-get": "#!/bin/sh\nexit 0\n",
        "apt-config": "#!/bin/sh\nexit 0\n",
    }
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return Stage(tmp_path)


def test_a_registry_that_answers_gives_the_pinned_image(stage: Stage) -> None:
    outcome = stage.build()
    assert outcome.stdout == "sha256:feed\n", outcome.stderr
    assert stage.calls("pull") == [f"pull {PINS['BASE']}"]
    assert stage.calls("tag") == [f"tag {PINS['BASE']} {PINS['TAG']}"]
    assert stage.calls("debootstrap") == []


def test_the_pinned_image_is_not_made_again(stage: Stage) -> None:
    (stage.folder / "image").write_text(f"python@{DIGEST} |\n")
    assert stage.build().stdout == "sha256:feed\n"
    assert stage.calls("pull") + stage.calls("debootstrap") + stage.calls("run") == []


@pytest.mark.parametrize("registry", ["silent", "gone", "broken"])
def test_without_a_registry_the_image_is_built_here(stage: Stage, registry: str) -> None:
    outcome = stage.build(REGISTRY=registry)
    assert outcome.stdout == "sha256:feed\n", outcome.stderr
    [made] = stage.calls("debootstrap")
    assert f"--include={PINS['PACKAGES']} {PINS['SUITE']} " in made
    listing = (stage.folder / "listing").read_text().splitlines()
    assert {"./workspace/", "./run/interlock/", "./usr/bin/python3"} <= set(listing)
    assert not {"./etc/resolv.conf", "./var/cache/apt/git.deb"} & set(listing)


def test_an_image_built_here_is_current_until_its_recipe_changes(stage: Stage) -> None:
    assert stage.build("--check").returncode == 1
    stage.build("--local")
    assert stage.calls("pull") == []
    assert stage.build("--check").returncode == 0
    (stage.folder / "image").write_text("|0123456789abcdef\n")
    assert stage.build("--check").returncode == 1


def test_an_image_that_does_not_run_is_not_kept(stage: Stage) -> None:
    outcome = stage.build("--local", RUNS="no")
    assert outcome.returncode == 3
    assert "does not run" in outcome.stderr
    assert stage.build("--check").returncode == 1


def test_without_an_engine_the_next_step_is_named(stage: Stage) -> None:
    outcome = stage.build(ENGINE="down")
    assert outcome.returncode == 3
    assert outcome.stderr == "No Docker engine answers. Run:  make setup\n"
