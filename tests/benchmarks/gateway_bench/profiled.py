"""The gateway under cProfile: `python -m tests.benchmarks.gateway_bench.profiled FILE ARGUMENTS…`.

Only the main thread is profiled: the one that serves. The figures are for finding what is dear, not
for adding up; the profiler itself makes every Python call dearer.
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
