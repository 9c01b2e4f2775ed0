"""Which images are on this machine, asked of the engine itself."""

from __future__ import annotations

from pathlib import Path

import docker
from docker.errors import DockerException, ImageNotFound


def default_reference() -> str:
    """The tag that set-up gives the sandbox image (runner/sandbox/image/image.env)."""
    for line in (Path(__file__).parent / "image" / "image.env").read_text().splitlines():
        if line.startswith("TAG="):
            return line.removeprefix("TAG=").strip().strip("\"'")
    raise LookupError("runner/sandbox/image/image.env has no TAG= line")


def engine_version() -> str | None:
    """Version of the Docker engine that answers; None when none does."""
    try:
        client = docker.from_env(timeout=5)
        try:
            return str(client.version()["Version"])
        finally:
            client.close()
    except (DockerException, OSError):
        return None


def image_id(reference: str) -> str | None:
    """The image's own digest (`sha256:…`); None when it is not on this machine."""
    try:
        client = docker.from_env(timeout=10)
        try:
            return str(client.images.get(reference).id)
        finally:
            client.close()
    except (ImageNotFound, DockerException, OSError):
        return None
