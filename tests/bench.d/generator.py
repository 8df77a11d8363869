"""The generator beside wrk: CPU time per request at saturation; start lateness and honesty at a fixed rate."""

import re

from figures import Figure
from host import CLIENT_CPU, Broken, tell
from peers import settle, wrk

CONNECTIONS = 50
RATE = 5000
# Offered beyond what wrk reached: every connection stays busy, and the rest waits for its turn.
OVERLOAD = 1.3


def squall(host, example, url, rate, seconds, deadline):
    """One run of the generator on the client's CPU."""
    argv = [example, url, f"{rate:.0f}", seconds, CONNECTIONS, deadline]
    done = host.good(argv, cpu=CLIENT_CPU, deadline=seconds + deadline + 30)
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
    reached = None

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
        if values["ok"] != values["due"]:
            raise Broken(f"of {values['due']} requests only {values['ok']} were answered")
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
            "generator: CPU time per request, saturated",
            "us",
            ours,
            "<= 1.15",
            peers={"wrk": theirs},
            ratio=ratios,
            ratio_of="wrk",
            note=f"one core, {CONNECTIONS} kept-alive connections, 12-byte body of nginx on the other core",
        ),
        Figure("generator: good answers meanwhile", "/s", rates, peers={"wrk": peer_rates}),
    ]


def paced(host, example, nginx, rounds, seconds):
    """At a fixed rate: how late, and whether all that was due was sent."""
    p50, p99, due, sent = [], [], 0, 0
    for index in range(rounds):
        tell(f"bench: generator at {RATE:,}/s, round {index + 1} of {rounds}")
        _, values = squall(host, example, nginx.small, RATE, seconds, 1)
        p50.append(values["p50"] / 1e6)
        p99.append(values["p99"] / 1e6)
        due += values["due"]
        sent += values["sent"]
        settle()
    expected = RATE * seconds * rounds
    return [
        Figure(
            f"generator: start lateness p99 at {RATE:,}/s",
            "us",
            p99,
            "<= 200 us",
            note=f"p50 {sorted(p50)[len(p50) // 2] * 1e6:.0f} us; no peer in Debian has an open model",
        ),
        Figure(
            f"generator: sent of due at {RATE:,}/s",
            "x",
            [sent / due if due else 0.0],
            ">= 1.0",
            judged=1.0 if sent == due == expected else 0.0,
            note=f"{expected:,} arrivals by schedule, {due:,} due, {sent:,} sent",
        ),
    ]
