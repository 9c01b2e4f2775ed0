"""What runs inside a container as process 1: it proves the restrictions, then carries out steps.

One process for the whole life of a sandbox instead of a `docker exec` per step: a step costs a
fork (some ms) and not a new runtime set-up (80 ms and as much CPU), process 1 cannot be killed
from inside, not even by `kill -9 -1`, and it goes on with a step when the runner dies. A runner
that comes later starts this same program with `docker exec` (a *session*) and asks for the step by
key.

The modules here run with nothing but Python's standard library (3.8 or newer), never on the host,
and are sent as text (`command`), so that no image has to carry them and no image can be out of
step. They keep their imports few: they are paid at every start. The host believes nothing of what
comes back: code under test runs as the same user.
"""

from functools import lru_cache
from pathlib import Path

_LOADER = """import sys
for name, source in {sources!r}:
    module = type(sys)(name)
    sys.modules[name] = module
    exec(compile(source, name, "exec"), module.__dict__)
sys.modules["runner.sandbox.inside.steps"].main()
"""


@lru_cache(maxsize=1)
def command() -> list[str]:
    """What the container runs: the modules of this folder as one text, in the order they need."""
    sources = [
        (f"{__name__}.{name}", (Path(__file__).parent / f"{name}.py").read_text())
        for name in ("facts", "files", "steps")
    ]
    # -I: nothing of the environment or the working directory decides what is imported.
    return ["python3", "-I", "-S", "-c", _LOADER.format(sources=sources)]
