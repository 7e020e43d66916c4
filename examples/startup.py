"""Time and memory from the start of a process to its first answer, and where they go. Linux and macOS.

python examples/startup.py artifacts/sst2-mini
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time

RUNS = 15
PROCESS = """
import sys, time
times = [float(sys.argv[2]), time.time()]
from fusedbert.engine import Classifier
times.append(time.time())
clf = Classifier.from_pretrained(sys.argv[1])
times.append(time.time())
clf("I really loved this movie.")
times.append(time.time())
import json, resource
print(json.dumps([times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
STEPS = ("interpreter", "import fusedbert.engine", "from_pretrained (onnxruntime's import included)", "first answer")


def main(model: str) -> None:
    """Start fresh processes one after another and print the median of each step."""
    steps, totals, peaks = [], [], []
    for _ in range(RUNS):
        command = [sys.executable, "-c", PROCESS, model, repr(time.time())]
        times, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        steps.append([after - before for before, after in itertools.pairwise(times)])
        totals.append(times[-1] - times[0])
        peaks.append(peak * (1 if sys.platform == "darwin" else 1024))
    for name, seconds in zip(STEPS, zip(*steps, strict=True), strict=True):
        print(f"{1e3 * statistics.median(seconds):6.0f} ms  {name}")
    print(f"{1e3 * statistics.median(totals):6.0f} ms  in all (fastest {1e3 * min(totals):.0f}, {RUNS} processes)")
    print(f"{statistics.median(peaks) / 1e6:6.0f} MB  peak memory")


if __name__ == "__main__":
    main(*sys.argv[1:])
