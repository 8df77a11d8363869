"""Memory of a one-hour run at 5,000/s, of a load by itself at 20,000/s, and of 10,000 users of a journey, against nginx:
sampled each second from /proc, by slope and by peak.

A shorter look is the beginning of the same run, ended by SIGINT: how finely a record is kept depends on its length.
"""

import json
import re
import signal
import time
from pathlib import Path

from figures import Figure
from host import CLIENT_CPU, Broken, tell

# The first half minute fills caches, histograms and the allocator's reserve.
SETTLED_S = 30
HOUR_S = 3600
RATE, SENDING_RATE = 5_000, 20_000
# Beyond its length a run may take so long to end.
PATIENCE_S = 60
# The shortest stretch whose slope says something.
SLOPE_MIN_S = 20
EXPERIMENT = """\
squall: v1
experiment: bench-memory
question: Does the memory of the engine stay flat?
load:
  - small:
      open: {{url: "{url}", connections: 50, arrivals: [{{hold: {{rate: {rate}/s, for: {hour}s}}}}]}}
objectives:
  - small: {{availability: ">= 99%"}}
timeline:
  - at: 6s
    for: 2s
    faults:
      - command: {{do: [touch, {mark}], undo: [rm, -f, {mark}], effect: [test, -e, {mark}]}}
"""


PEOPLE = 10_000
PEOPLE_S = 30
JOURNEYS = """\
squall: v1
experiment: bench-people
question: How much memory do so many users take?
load:
  - people:
      users:
        count: {people}
        ramp: 10s
        for: {lasting}s
        deadline: 5s
        journey: {{base: "{url}", think: 10s, steps: [{{one: {{path: "/small?1"}}}}, {{two: {{path: "/small?2"}}}}]}}
objectives:
  - people: {{availability: ">= 90%"}}
timeline:
  - at: 16s
    for: 1s
    faults:
      - command: {{do: [touch, {mark}], undo: [rm, -f, {mark}], effect: [test, -e, {mark}]}}
"""


def sample(pid):
    """Resident memory now and at its highest, in MiB; none once the process has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            text = status.read()
    except OSError:
        return None
    found = {key: re.search(rf"{key}:\s+(\d+) kB", text) for key in ("VmRSS", "VmHWM")}
    if not all(found.values()):
        return None
    return tuple(int(found[key][1]) / 1024 for key in ("VmRSS", "VmHWM"))


def slope(points):
    """Least squares, per second."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    below = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / below if below else 0.0


def follow(host, process, seconds):
    """Watches a process that would last an hour for so long: peak, points after it has settled, whether it was ended."""
    points, peak = [], 0.0
    began, told = time.monotonic(), False
    while process.poll() is None:
        at = time.monotonic() - began
        if at >= seconds and seconds < HOUR_S and not told:
            process.send_signal(signal.SIGINT)
            told = True
        if at > seconds + PATIENCE_S:
            host.stop(process)
            raise Broken(f"what should last {seconds} s did not end within {at:.0f} s")
        seen = sample(process.pid)
        if seen:
            peak = max(peak, seen[1])
            if SETTLED_S <= at <= seconds:
                points.append((at, seen[0]))
        time.sleep(1)
    host.stop(process)
    return peak, points, told


def sending(host, squall, nginx, seconds):
    """A load by itself, much faster."""
    tell(f"bench: memory of a load over {seconds} s at {SENDING_RATE:,}/s")
    file = host.folder / "memory-load.json"
    argv = [squall, "load", nginx.small, "--rate", f"{SENDING_RATE}/s", "--for", f"{HOUR_S}s", "--connections", 50]
    with open(file, "wb") as out:
        process = host.start([*argv, "--json", "--quiet"], cpu=CLIENT_CPU, stdout=out)
    peak, points, told = follow(host, process, seconds)
    if process.returncode not in ((4,) if told else (0, 6)):
        raise Broken(f"squall load ended with {process.returncode}")
    said = json.loads(file.read_text())
    sent = f"{said['sent']:,} of {said['intended']:,} sent"
    growth = slope(points) * 60 if seconds - SETTLED_S >= SLOPE_MIN_S else None
    hour, note = peak, f"measured over {seconds} s; {sent}"
    if seconds < HOUR_S:
        hour = peak + max(growth or 0.0, 0.0) * (HOUR_S - seconds) / 60
        note = f"the first {seconds} s of an hour; {sent}"
        note += f"; the hour's peak EXTRAPOLATED: {hour:.1f} MiB (--hour measures it)" if growth is not None else ""
    result = [Figure(f"memory: peak of a load at {SENDING_RATE:,}/s", "MiB", [peak], "<= 64 MiB", hour, note=note)]
    if growth is not None:
        note = "what grows is the record: a distribution for each slice of time, of which there are 900 at most"
        result.append(Figure("memory: growth of a load after 30 s", "MiB/min", [growth], "<= 0.2 MiB/min", note=note))
    return result


def one(host, squall, nginx, seconds):
    """One run: peak in MiB, slope in MiB per minute (none if it is too short), and what was sent of what was due."""
    tell(f"bench: memory over {seconds} s at {RATE:,}/s")
    folder = host.folder / f"memory-{seconds}"
    folder.mkdir()
    file = folder / "experiment.yaml"
    file.write_text(EXPERIMENT.format(url=nginx.small, rate=RATE, hour=HOUR_S, mark=folder / "mark"))
    with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
        process = host.start([squall, "run", file, "--runs", folder / "runs", "--json"], stdout=out, stderr=err)
    peak, points, told = follow(host, process, seconds)
    text = (folder / "out").read_text()
    # The verdict is not the bench's business: a busy machine may make the generator late, which is inconclusive.
    if process.returncode not in ((4,) if told else (0, 6)):
        raise Broken(f"the run ended with {process.returncode}:\n{text[-1500:]}{(folder / 'err').read_text()[-1500:]}")
    generator = json.loads(text)["generator"]
    long_enough = seconds - SETTLED_S >= SLOPE_MIN_S
    return peak, slope(points) * 60 if long_enough else None, generator


def family(pid):
    """A process and those that it has started."""
    children = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(child) for child in (task / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(found for child in children for found in family(child))]


def people(host, squall, nginx):
    """Users who think for ten seconds between their requests: the engine with all that it has started, at its highest."""
    tell(f"bench: memory of {PEOPLE:,} users")
    folder = host.folder / "memory-people"
    folder.mkdir()
    file = folder / "experiment.yaml"
    url = nginx.small.removesuffix("/small")
    file.write_text(JOURNEYS.format(url=url, people=PEOPLE, lasting=PEOPLE_S, mark=folder / "mark"))
    with open(folder / "out", "wb") as out:
        process = host.start([squall, "run", file, "--runs", folder / "runs", "--json"], stdout=out)
    peak, began = 0.0, time.monotonic()
    while process.poll() is None:
        if time.monotonic() - began > PEOPLE_S + PATIENCE_S:
            host.stop(process)
            raise Broken("users who should be gone are still there")
        peak = max(peak, sum(seen[0] for seen in map(sample, family(process.pid)) if seen))
        time.sleep(0.5)
    host.stop(process)
    if process.returncode not in (0, 6):
        raise Broken(f"the run with users ended with {process.returncode}")
    generator = json.loads((folder / "out").read_text())["generator"]
    note = f"all processes of the run; {generator['sent']:,} of {generator['due']:,} sent over at most "
    note += f"{generator['connections_max']:,} connections at a time, each of which takes some 30 KB more"
    return [Figure(f"memory: {PEOPLE:,} users who think for 10 s", "MiB", [peak], "<= 300 MiB", note=note)]


def figures(host, squall, nginx, lengths):
    """The longest run speaks; an hour is extrapolated unless it was one."""
    runs = {seconds: one(host, squall, nginx, seconds) for seconds in lengths}
    longest = max(lengths)
    peak, growth, _ = runs[longest]
    lasting = ", ".join(f"{seconds} s" for seconds in lengths)
    sent = ", ".join(f"{generator['sent']:,} of {generator['due']:,} sent" for _, _, generator in runs.values())
    slopes = [growth for _, growth, _ in runs.values() if growth is not None]
    if longest >= HOUR_S:
        hour, note = peak, f"measured over {longest} s; {sent}"
    elif growth is None:
        hour, note = None, f"the first {lasting}; too short to speak of an hour (the long bench does); {sent}"
    else:
        hour = peak + max(growth, 0.0) * (HOUR_S - longest) / 60
        note = f"the first {lasting} of an hour's run; "
        note += f"the hour's peak EXTRAPOLATED: {hour:.1f} MiB (--hour measures it); {sent}"
    judged = {"judged": hour} if hour is not None else {}
    reach = "<= 64 MiB" if hour is not None else ""
    result = [
        Figure(
            f"memory: peak at {RATE:,}/s", "MiB", [peak for peak, _, _ in runs.values()], reach, note=note, **judged
        )
    ]
    if slopes:
        result.append(
            Figure(
                "memory: growth after 30 s",
                "MiB/min",
                slopes,
                "<= 0.2 MiB/min",
                judged=growth,
                note=f"least squares over the {longest} s run",
            )
        )
    return result
