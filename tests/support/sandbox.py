"""A real container engine for tests: the image, sandboxes of their own, removal afterwards."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import docker

from gateway.values import CallKey, RunId, StepPath
from runner.sandbox import DockerSandboxes, connect
from runner.spec import SandboxSpec
from runner.workspace import Entry, Files


def sandbox_image() -> str:
    """Id of the image to test with: INTERLOCK_SANDBOX_IMAGE, else the newest interlock-sandbox."""
    client = docker.APIClient(base_url=os.environ.get("DOCKER_HOST"), version="auto")
    try:
        named = os.environ.get("INTERLOCK_SANDBOX_IMAGE")
        if named:
            return str(client.inspect_image(named)["Id"])  # type: ignore[no-untyped-call]
        found = sorted(client.images("interlock-sandbox"), key=lambda image: image["Created"])
        if found:
            return str(found[-1]["Id"])
    finally:
        client.close()
    raise AssertionError("no sandbox image; build it with runner/sandbox/image/build.sh")


@dataclass
class Engine:
    """What a test holds: sandboxes that carry its own label, a run, a spec."""

    boxes: DockerSandboxes
    spec: SandboxSpec
    run: RunId
    label: str
    client: docker.APIClient = field(repr=False)

    def key(self, step: str) -> CallKey:
        return CallKey(self.run, StepPath(step))


@asynccontextmanager
async def engine(image: str, **changes: int) -> AsyncIterator[Engine]:
    """Sandboxes on the real engine; whatever the test leaves behind is removed."""
    label = uuid.uuid4().hex[:12]
    boxes = connect(labels={"boot": label})
    client = docker.APIClient(base_url=os.environ.get("DOCKER_HOST"), version="auto")
    spec = SandboxSpec(image=image, **changes)
    try:
        yield Engine(boxes, spec, RunId(f"run-{label}"), label, client)
    finally:
        await boxes.reap(lambda run: False, boot=label)
        await boxes.close()
        client.close()


def tree(**texts: str) -> Files:
    """Files from keyword arguments: `tree(a="x")`; a double underscore is a slash."""
    return {path.replace("__", "/"): Entry(text.encode()) for path, text in texts.items()}
