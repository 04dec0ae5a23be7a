"""One load test that runs on, while states of its surroundings take turns, and what each state does to its p99.

A machine that also does other work is faster in one minute than in the next, by more than the tests of this directory
permit a state to cost. Therefore, no state is measured in a run of its own. The load runs on, the states take turns in
segments of some seconds, and each segment is compared only with the ones next to it.

The latency of a segment is the geometric mean of its seconds' p99. p99 of all operations of the segment would be less robust,
because a single second of other work can decide it. The median of the seconds would be less honest, because it does not show
an attack that stops the node once in each segment.
"""

import json
import math
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "crates/node/tests/protocol"))

from ports import free_ports  # noqa: E402, F401, for the tests

# Reconnects and joins are too few for a p99.
OPERATIONS = ("delivery", "publish", "call")
# The load test reports p99 of each step of its load. All steps have the same load here, and last this many seconds: each rate
# must be a whole number of operations in a step.
STEP = 1
# The test ends the load before. With more, the load test requests the metrics less often than every second.
MAX_STEPS = 1500
# The load test may connect, and wait for its last responses, this long.
PATIENCE = 120

# Of what is measured: as high as the test needs to be independent of other work.
PRIORITY = -15


def program(variable):
    path = os.environ.get(variable)
    if not path or not Path(path).is_file():
        raise SystemExit(f"{variable} must be the path of the program, not {path!r}")
    return path


def preferred():
    """Runs in a new process. Other work on this machine would make every p99 as long as a time slice."""
    # Linux can share CPU time between sessions before it does between processes.
    os.setsid()
    autogroup = Path("/proc/self/autogroup")
    try:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        if autogroup.exists():
            autogroup.write_text(str(PRIORITY))
    except PermissionError:
        pass  # Only root may prefer its processes. Without, the comparison needs a machine without other work.


class SteadyLoad:
    """A load test in the background. Use it with `with`. `arguments` are those of `roomcast-loadtest run`."""

    def __init__(self, directory, *arguments):
        self.began, self.results = Path(directory) / "load.began", Path(directory) / "load.json"
        self.command = [
            program("ROOMCAST_LOADTEST_BIN"), "run", *map(str, arguments), "--quiet", "--json", str(self.results),
            "--duration", f"{STEP}s", "--steps", json.dumps([1] * MAX_STEPS), "--stop-at-knee", "false",
            "--exec", f"touch {shlex.quote(str(self.began))}", "--exec-after", "0s",
        ]  # fmt: skip
        # Each a state, and its start and end in seconds.
        self.segments = []

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, preexec_fn=preferred)
        ends = time.monotonic() + PATIENCE
        while not self.began.exists():
            if self.process.poll() is not None or time.monotonic() > ends:
                output = self.end()
                raise SystemExit(f"the load test does not start:\n{output}")
            time.sleep(0.1)
        self.start = self.began.stat().st_mtime
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        self.process.terminate()
        return self.process.communicate()[0].decode()

    def measure(self, state, seconds):
        """Waits for a segment of so many seconds, during which the surroundings must stay in this state."""
        start = math.ceil((time.time() - self.start) / STEP) * STEP
        time.sleep(max(self.start + start + seconds - time.time(), 0))
        if self.process.poll() is not None:
            raise SystemExit(f"the load test ended before the last segment:\n{self.end()}")
        self.segments.append((state, start, start + seconds))

    def finish(self, permitted=()):
        """Ends the load. Returns what was measured, and the report of the load test if it failed, or had an error that is not
        permitted."""
        self.process.send_signal(signal.SIGINT)
        output = self.process.communicate(timeout=PATIENCE)[0].decode()
        if not self.results.is_file():
            raise SystemExit(f"the load test did not run:\n{output}")
        results = json.loads(self.results.read_text())
        segments = [Segment(*segment, results) for segment in self.segments]
        is_good = results["passed"] and set(results["errors"]) <= set(permitted)
        return segments, None if is_good else output


class Segment:
    """What the load test measured in a segment."""

    def __init__(self, state, start, end, results):
        self.state = state
        steps = [step for step in results["steps"] if start <= step["from"] and step["until"] <= end]
        # In milliseconds: the geometric mean of the seconds' p99.
        mean = statistics.geometric_mean
        self.p99 = {name: mean(step["operations"][name]["p99"] for step in steps) / 1000 for name in OPERATIONS}
        samples = [sample for sample in results["nodes"][0]["samples"] if start <= sample["at"] <= end]
        first, last = samples[0], samples[-1]
        used = last["values"]["process_cpu_seconds_total"] - first["values"]["process_cpu_seconds_total"]
        # The node's, in cores.
        self.cpu = used / (last["at"] - first["at"])


def ratio(segments, operation, state, baseline):
    """The median, over all segments in this state and each baseline segment next to them, of the ratio of their latencies.

    A drift of the machine changes both segments of a pair, and as each segment is compared with the one before and the one
    after, a steady drift cancels out. A longer burst of other work spoils few of the ratios, and the median leaves them out.
    """
    pairs = [*pairwise(segments), *((after, before) for before, after in pairwise(segments))]
    compared = [(one, other) for one, other in pairs if (one.state, other.state) == (state, baseline)]
    return statistics.median(one.p99[operation] / other.p99[operation] for one, other in compared)


def check(segments, states, baseline, max_ratio):
    """Prints p99 of each segment by state, and returns the failures: ratios to the baseline above `max_ratio`."""
    failures = []
    for operation in OPERATIONS:
        print(f"p99 of {operation}: the geometric mean of the seconds' p99, by segment, in milliseconds")
        for state in (baseline, *states):
            times = [segment.p99[operation] for segment in segments if segment.state == state]
            line = f"  {state:25} {' '.join(f'{time:5.1f}' for time in times)}   median {statistics.median(times):.1f}"
            if state != baseline:
                found = ratio(segments, operation, state, baseline)
                line += f", ×{found:.2f} (median of the ratios of adjacent segments)"
                if found > max_ratio:
                    failures.append(f"p99 of {operation} is ×{found:.2f} with {state}, more than ×{max_ratio}")
            print(line)
    for state in (baseline, *states):
        cpu = statistics.mean(segment.cpu for segment in segments if segment.state == state)
        print(f"CPU of the node with {state}: {cpu:.2f} cores")
    return failures
