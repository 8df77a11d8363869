"""The search for a capacity: on simulated targets many times, on a server of known capacity in real time; and the honesty
of a load when its target stalls. No peer has a search with an interval; what their searches miss by is in
`peers/load.md` 6.2."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from figures import Figure
from host import Broken, tell

KNOWN = Path(__file__).resolve().parent / "known.py"
SEEDS = 20
# Of what a target carries: the spread, and how often somebody takes 10 to 50 %.
NOISE, DISTURBED = 0.02, 0.05
WORKERS, SERVICE_MS = 4, 8
TRUTH = WORKERS / SERVICE_MS * 1000


def simulated(host, example):
    """How often the truth lies in the interval, how wide that is, and how long the search takes."""
    tell(f"bench: {SEEDS} searches on simulated targets")
    all_found = json.loads(host.good([example, SEEDS, NOISE, DISTURBED], deadline=300).out)
    found = [one["found"] for one in all_found]
    inside = sum(one["found"]["low"] <= one["truth"] <= one["found"]["high"] for one in all_found)
    widths = [one["high"] / one["low"] - 1 for one in found]
    off = [abs(one["found"]["capacity"] / one["truth"] - 1) for one in all_found]
    times = [one["took_s"] for one in found]
    note = f"{SEEDS} seeds, noise {NOISE:.0%}, {DISTURBED:.0%} of the trials disturbed; off by {statistics.median(off):.1%}, at most {max(off):.1%}"
    return [
        Figure("capacity: truth in the 90 % interval", "x", [inside / SEEDS], ">= 0.85", note=note),
        Figure("capacity: width of the interval", "x", widths, "<= 0.05", max(widths), note="the widest counts"),
        Figure("capacity: time of a search", "s", times, "<= 180 s", note="the median counts; simulated clock"),
    ]


class Known:
    """The server of known capacity."""

    def __init__(self, host):
        self.host = host
        argv = [sys.executable, KNOWN, 0, WORKERS, SERVICE_MS]
        self.process = host.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.host.stop(self.process)


def real(host, squall, rounds):
    """Searches in real time."""
    off, times, inside = [], [], 0
    for index in range(rounds):
        tell(f"bench: search for a capacity of {TRUTH:.0f}/s, round {index + 1} of {rounds}")
        with Known(host) as known:
            argv = [squall, "capacity", known.url, "--objective", "p99 <= 100ms", "--no-collapse", "--json", "--quiet"]
            done = host.run(argv, deadline=400)
        if done.code not in (0, 6):
            raise Broken(f"squall capacity ended with {done.code}:\n{done.err[-2000:]}")
        found = json.loads(done.out)["finding"]
        if found["capacity"] is None:
            continue
        inside += found["low"] <= TRUTH <= found["high"]
        off.append(abs(found["capacity"] / TRUTH - 1))
        times.append(found["took_s"])
    note = f"{WORKERS} workers of {SERVICE_MS} ms: {TRUTH:.0f}/s; inside the interval {inside} of {rounds} times"
    return [
        Figure("capacity: off the truth, real time", "%", off, note=note),
        Figure("capacity: time of a search, real time", "s", times, "<= 180 s"),
    ]


def figures(host, squall, examples, rounds):
    """Both; the short bench leaves real time to the end-to-end tests."""
    found = simulated(host, examples["searching"])
    return found + real(host, squall, rounds) if rounds else found
