"""The generator beside wrk: CPU time per request at saturation; start lateness and honesty at a fixed rate."""

import re
import statistics

from figures import Figure
from host import CLIENT_CPU, Broken, may_realtime, others, tell
from peers import settle, wrk

CONNECTIONS = 50
RATE = 5000
# Offered beyond what wrk reached: every connection stays busy, and the rest waits for its turn.
OVERLOAD = 1.3


def squall(host, example, url, rate, seconds, deadline, realtime=False):
    """One run of the generator on the client's CPU."""
    argv = [example, url, f"{rate:.0f}", seconds, CONNECTIONS, deadline]
    done = host.good(argv, cpu=CLIENT_CPU, deadline=seconds + deadline + 30, realtime=realtime)
    pick = {
        "ok": r"\bok (\d+)",
        "p50": r"lag us: p50 (\d+)",
        "p99": r"lag us: p50 \d+ p99 (\d+)",
        "due": r"in all: due (\d+)",
        "sent": r"in all: due \d+ sent (\d+)",
    }
    values = {}
    for name, pattern in pick.items():
        found = re.search(pattern, done.out)
        if not found:
            raise Broken(f"the generator's output lacks {name}:\n{done.out}")
        values[name] = int(found[1])
    return done, values


def saturation(host, example, nginx, rounds, seconds):
    """CPU time per request, alternating A B, B A."""
    ours, theirs, ratios, rates, peer_rates = [], [], [], [], []
    reached, unanswered = None, 0

    def peer():
        nonlocal reached
        done = wrk(host, nginx.small, CONNECTIONS, seconds)
        found = re.search(r"(\d+) requests in", done.out)
        reached = int(found[1]) / seconds
        peer_rates.append(reached)
        return done.cpu_s / int(found[1])

    def own():
        offered = reached * OVERLOAD
        done, values = squall(host, example, nginx.small, offered, seconds, 4 * seconds)
        if not values["ok"]:
            raise Broken(f"of {values['due']} requests none was answered:\n{done.out}")
        nonlocal unanswered
        unanswered += values["due"] - values["ok"]
        rates.append(values["ok"] / done.wall_s)
        return done.cpu_s / values["ok"]

    for index in range(rounds):
        tell(f"bench: generator at saturation, round {index + 1} of {rounds}")
        if index % 2 == 0 or reached is None:
            b = peer()
            settle()
            a = own()
        else:
            a = own()
            settle()
            b = peer()
        settle()
        ours.append(a)
        theirs.append(b)
        ratios.append(a / b)
    return [
        Figure(
            "generator: CPU time per request",
            "us",
            ours,
            "<= 1.15",
            peers={"wrk": theirs},
            ratio=ratios,
            ratio_of="wrk",
            note=f"saturated on one core, {CONNECTIONS} kept-alive connections, 12-byte body of nginx on the other "
            f"core; offered {OVERLOAD} times what wrk reached, {unanswered:,} not answered",
        ),
        Figure("generator: answers meanwhile", "/s", rates, peers={"wrk": peer_rates}),
    ]


def paced(host, example, nginx, rounds, seconds):
    """At a fixed rate: how late, and whether all that was due was sent. At ordinary priority the lateness is also that
    of the machine, so it is measured at real-time priority as well."""
    ways = ["ordinary", "real-time"] if may_realtime() else ["ordinary"]
    p50, p99 = {way: [] for way in ways}, {way: [] for way in ways}
    due, sent, busy = 0, 0, []
    for index in range(rounds):
        tell(f"bench: generator at {RATE:,}/s, round {index + 1} of {rounds}")
        for way in ways:
            busy.append(others())
            realtime = way == "real-time"
            _, values = squall(host, example, nginx.small, RATE, seconds, 1, realtime)
            p50[way].append(values["p50"] / 1e6)
            p99[way].append(values["p99"] / 1e6)
            due += values["due"]
            sent += values["sent"]
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
