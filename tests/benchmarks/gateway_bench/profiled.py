"""The gateway under cProfile: `python -m tests.benchmarks.gateway_bench.profiled FILE ARGUMENTS…`.

Only the main thread is profiled, the one that serves, by the wall clock (a CPU clock is a system
call and doubles the cost of every function). So the own time of what runs the loop holds the
waiting and what uvloop does in C. The figures are for finding what is dear, not for adding up.
"""

from __future__ import annotations

import cProfile
import sys

from gateway.process import main

if __name__ == "__main__":
    profiler = cProfile.Profile()
    try:
        status = profiler.runcall(main, sys.argv[2:])
    finally:
        profiler.dump_stats(sys.argv[1])
    sys.exit(status)
