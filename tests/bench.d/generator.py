"""The generator by itself at a fixed rate, also at real-time priority: start lateness and honesty."""

import statistics

from figures import Figure
from host import may_realtime, others, tell
from sending import CONNECTIONS, squall

RATE = 5000


def paced(host, binary, nginx, rounds, seconds):
    """At a fixed rate: how late, and whether all that was due was sent. At ordinary priority the lateness is also that
    of the machine, so it is measured at real-time priority as well."""
    ways = ["ordinary", "real-time"] if may_realtime() else ["ordinary"]
    p50, p99 = {way: [] for way in ways}, {way: [] for way in ways}
    due, sent, busy = 0, 0, []
    for index in range(rounds):
        tell(f"bench: generator at {RATE:,}/s, round {index + 1} of {rounds}")
        for way in ways:
            busy.append(others())
            options = ["--connections", CONNECTIONS]
            _, said = squall(host, binary, nginx.small, RATE, seconds, *options, realtime=way == "real-time")
            p50[way].append(said["lag"]["p50_s"])
            p99[way].append(said["lag"]["p99_s"])
            due += said["intended"]
            sent += said["sent"]
    result = []
    for way in ways:
        note = f"start lateness, p50 {statistics.median(p50[way]) * 1e6:.0f} us; "
        if way == "ordinary":
            note += f"other work took {statistics.median(busy):.0%} of the cores just before; "
            note += "no peer in Debian has an open model"
        else:
            note += "as above at real-time priority, which other work delays less but not never"
        name = f"generator: lateness p99, {RATE:,}/s" if way == "ordinary" else "generator: lateness, real-time"
        result.append(Figure(name, "us", p99[way], "<= 200 us", note=note))
    expected = RATE * seconds * rounds * len(ways)
    result.append(
        Figure(
            f"generator: sent of due, {RATE:,}/s",
            "x",
            [sent / due if due else 0.0],
            ">= 1.0",
            judged=1.0 if sent == due == expected else 0.0,
            note=f"{expected:,} arrivals by schedule, {due:,} due, {sent:,} sent",
        )
    )
    return result
