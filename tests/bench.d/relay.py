"""The relay without faults beside HAProxy and Toxiproxy: added latency and throughput."""

import re

import peers
from figures import Figure
from host import tell

SCALES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
BYTES = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
STREAMS = 32


def median_latency(host, port, seconds):
    """A closed loop on one connection, in seconds."""
    done = peers.wrk(host, f"http://127.0.0.1:{port}/small", 1, seconds)
    found = re.search(r"50%\s+([\d.]+)(us|ms|s)", done.out)
    return float(found[1]) * SCALES[found[2]]


def throughput(host, port, seconds):
    """64 KiB bodies, in bytes per second."""
    done = peers.wrk(host, f"http://127.0.0.1:{port}/large", STREAMS, seconds)
    found = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?B)", done.out)
    return float(found[1]) * BYTES[found[2]]


def rounds_of(what, measure, ports, rounds):
    """Measures each way once per round, each round beginning with another."""
    ways = list(ports)
    seen = {way: [] for way in ways}
    for index in range(rounds):
        tell(f"bench: {what}, round {index + 1} of {rounds}")
        first = index % len(ways)
        for way in ways[first:] + ways[:first]:
            seen[way].append(measure(ports[way]))
            peers.settle()
    return seen


def figures(host, squall, nginx, toxiproxy, rounds, seconds):
    """All hops at work at once would disturb each other: idle ones only hold sockets."""
    ports = {"direct": nginx.port}
    hops = []
    process, ports["squall"] = peers.squall_hop(host, squall, nginx.port)
    hops.append(process)
    try:
        process, ports["haproxy"] = peers.haproxy_hop(host, nginx.port)
        hops.append(process)
    except peers.Missing:
        tell("bench: haproxy is missing")
    if toxiproxy:
        process, ports["toxiproxy"], _ = peers.toxiproxy_hop(host, toxiproxy, nginx.port)
        hops.append(process)
    others = [way for way in ports if way not in ("direct", "squall")]
    seen = rounds_of("latency through the relay", lambda port: median_latency(host, port, seconds), ports, rounds)
    added = {
        way: [through - direct for through, direct in zip(seen[way], seen["direct"])]
        for way in ports
        if way != "direct"
    }
    direct = sorted(seen["direct"])[rounds // 2] * 1e6
    result = [
        Figure(
            "relay: added p50",
            "us",
            added["squall"],
            "<= 60 us",
            peers={way: added[way] for way in others},
            note=f"closed loop, 1 connection, 12-byte body; direct {direct:.0f} us; server and client on a core each, "
            "the hop where the kernel puts it",
        )
    ]
    seen = rounds_of("throughput through the relay", lambda port: throughput(host, port, seconds), ports, rounds)
    peer = "haproxy"
    ratio = [a / b for a, b in zip(seen["squall"], seen[peer])] if peer in seen else []
    result.append(
        Figure(
            "relay: throughput",
            "MB/s",
            seen["squall"],
            ">= 0.40",
            peers={way: seen[way] for way in [*others, "direct"]},
            ratio=ratio,
            ratio_of=peer,
            note=f"64 KiB bodies, {STREAMS} connections; HAProxy in TCP mode with its defaults (a thread per core), "
            "squall's relay has one thread",
        )
    )
    for process in reversed(hops):
        host.stop(process)
    return result
