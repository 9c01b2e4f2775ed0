"""What one hardened sandbox costs: open, three steps, copy out, verify; beside bare Docker.

The bare side creates, starts, runs one command in, and removes a container with the same flags.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import docker
import pytest

from gateway.values import CallKey, RunId, StepPath
from runner.sandbox import connect
from runner.sandbox.images import default_reference, image_id
from runner.spec import CommandCheck, SandboxSpec
from runner.verifier import verify
from runner.workspace import Entry

pytestmark = pytest.mark.benchmark

ROUNDS = 8
FILES = {
    "app.py": Entry(b"def add(a, b):\n    return a + b\n", False),
    "tests/__init__.py": Entry(b"", False),
    "tests/test_app.py": Entry(
        b"import unittest\nfrom app import add\n\n\nclass T(unittest.TestCase):\n"
        b"    def test_add(self):\n        self.assertEqual(add(1, 2), 3)\n",
        False,
    ),
}


async def _one(image: str, number: int, pristine: Path) -> float:
    sandboxes = connect(labels={"bench": "eval-run"})
    spec = SandboxSpec(image=image)
    run = RunId(f"run-bench{number:011d}")
    begun = time.perf_counter()
    box = await sandboxes.open(run, spec, files=FILES)
    for step in range(3):
        await box.exec(CallKey(run, StepPath(str(step))), ["python3", "-c", "1"], timeout_ms=20_000)
    files = (await box.snapshot()).files
    await box.close()
    check = CommandCheck(id="tests", command="python3 -B -m unittest -q")
    grades = await verify(
        [check],
        files=files,
        pristine=pristine,
        protect=("tests/**",),
        spec=spec,
        sandboxes=sandboxes,
        run=run,
    )
    await sandboxes.settle()
    took = time.perf_counter() - begun
    assert [grade.status for grade in grades] == ["passed"], grades
    await sandboxes.close()
    return took


def _bare(client: docker.DockerClient, image: str) -> float:
    begun = time.perf_counter()
    container = client.containers.run(
        image,
        ["sleep", "60"],
        detach=True,
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        init=True,
        labels={"bench": "bare"},
    )
    assert container.exec_run(["python3", "-c", "1"]).exit_code == 0
    container.remove(force=True)
    return time.perf_counter() - begun


def test_an_eval_run_beside_bare_containers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = image_id(default_reference())
    assert image is not None, "no sandbox image: run `make setup`"
    for path, entry in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(entry.data)
    client = docker.from_env()
    ours, bare = [], []
    for number in range(ROUNDS):
        ours.append(asyncio.run(_one(image, number, tmp_path)))
        bare.append(_bare(client, image))
    client.close()
    mine, theirs = statistics.median(ours), statistics.median(bare)
    with capsys.disabled():
        print(
            f"\neval run (two containers, three steps, verdict): median {mine * 1e3:.0f} ms; one"
            f" bare container with one exec: {theirs * 1e3:.0f} ms; ratio {mine / theirs:.2f}"
        )
