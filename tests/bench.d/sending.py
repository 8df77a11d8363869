"""`squall load` beside its peers: requests per CPU-second, saturated, at a fixed rate and over HTTP/2; how late requests
start; and whether a stall is told as users see it."""

import contextlib
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

from figures import Figure
from host import CLIENT_CPU, SERVER_CPU, Broken, free_port, tell, wait_port
from peers import Missing, find, settle, wrk

KNOWN = Path(__file__).resolve().parent / "known.py"
CONNECTIONS = 50
FIXED_RATE, LATE_RATE = 30_000, 1_000
# Offered beyond what the peer reached: every connection stays busy, and the rest waits for its turn.
OVERLOAD = 1.3
STREAMED = 10
# One stall in the middle of a load, and how much of the load it is.
STALL_RATE, STALL_S, STALL_AT_S = 1_000, 1.0, 2.0


def squall(host, binary, url, rate, seconds, *options, deadline="2s", realtime=False):
    """One load on the client's CPU: what the process used, and the document."""
    argv = [binary, "load", url, "--rate", f"{rate:.0f}/s", "--for", f"{seconds}s", "--deadline", deadline]
    patience = seconds + float(deadline[:-1]) + 30
    done = host.run([*argv, *options, "--json", "--quiet"], cpu=CLIENT_CPU, deadline=patience, realtime=realtime)
    # A generator that is offered too much says so with 6; a figure it is all the same.
    if done.code not in (0, 1, 6):
        raise Broken(f"squall load ended with {done.code}:\n{done.err[-2000:]}")
    document = json.loads(done.out)
    if not document["ok"]:
        raise Broken(f"of {document['intended']} requests none was answered:\n{done.out[-2000:]}")
    return done, document


def oha(host, path, url, *options, seconds, connections=CONNECTIONS):
    """One run of oha: good answers, what the process used, the 99th percentile."""
    argv = [path, "--no-tui", "--output-format", "json", "-z", f"{seconds}s", "-c", connections, *options, url]
    done = host.good(argv, cpu=CLIENT_CPU, deadline=seconds + 30)
    document = json.loads(done.out)
    good = document["statusCodeDistribution"].get("200", 0)
    return good, done.cpu_s, document["latencyPercentiles"]["p99"]


def hey(host, path, url, rate, seconds, connections=CONNECTIONS):
    """As `oha`; its rate is that of each connection."""
    argv = [path, "-z", f"{seconds}s", "-c", connections, "-q", rate / connections, "-cpus", 1, url]
    done = host.good(argv, cpu=CLIENT_CPU, deadline=seconds + 30)
    good, p99 = re.search(r"\[200\]\s+(\d+) responses", done.out), re.search(r"99% in ([\d.]+) secs", done.out)
    if not good or not p99:
        raise Broken(f"hey's output lacks its counts:\n{done.out}")
    return int(good[1]), done.cpu_s, float(p99[1])


def alternating(rounds, what, ours, theirs):
    """Both, A B and B A in turn; `theirs` is first, since it may say how much is offered."""
    pairs = []
    for index in range(rounds):
        tell(f"bench: {what}, round {index + 1} of {rounds}")
        if index % 2 == 0:
            b = theirs()
            settle()
            a = ours()
        else:
            a = ours()
            settle()
            b = theirs()
        settle()
        pairs.append((a, b))
    return pairs


def per_second(name, pairs, peer, reach, note):
    """Requests per CPU-second of the generator's process, and the ratio of each pair."""
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    ratio = [a / b for a, b in pairs]
    return Figure(name, "/s", ours, reach, peers={peer: theirs}, ratio=ratio, ratio_of=peer, note=note)


def saturated(host, binary, nginx, rounds, seconds):
    """HTTP/1.1 with all connections busy: what is asked of a lane of our own, which this is."""
    reached, unanswered, rates, peer_rates = None, 0, [], []

    def peer():
        nonlocal reached
        done = wrk(host, nginx.small, CONNECTIONS, seconds)
        answered = int(re.search(r"(\d+) requests in", done.out)[1])
        reached = answered / seconds
        peer_rates.append(reached)
        return answered / done.cpu_s

    def own():
        nonlocal unanswered
        options = ["--connections", CONNECTIONS]
        rate = reached * OVERLOAD
        done, said = squall(host, binary, nginx.small, rate, seconds, *options, deadline=f"{4 * seconds}s")
        unanswered += said["intended"] - said["ok"]
        rates.append(said["ok"] / done.wall_s)
        return said["ok"] / done.cpu_s

    pairs = alternating(rounds, "saturated beside wrk", own, peer)
    note = f"requests per CPU-second, one core, {CONNECTIONS} kept-alive connections, 12-byte body of nginx on the other "
    note += f"core; offered {OVERLOAD} times what wrk reached, {unanswered:,} not answered; answers per second "
    note += f"{statistics.median(rates):,.0f}, wrk's {statistics.median(peer_rates):,.0f}"
    return [per_second("load: HTTP/1.1 saturated, per CPU-second", pairs, "wrk", ">= 1.15", note)]


def fixed(host, binary, nginx, oha_path, rounds, seconds):
    """At a rate that all of them can reach: what each request costs, and how late it starts."""
    lags, sent, intended = {"p50_s": [], "p99_s": []}, 0, 0
    result, reached = [], {}

    def own():
        nonlocal sent, intended
        done, said = squall(host, binary, nginx.small, FIXED_RATE, seconds, "--connections", CONNECTIONS)
        for name, values in lags.items():
            values.append(said["lag"][name])
        sent, intended = sent + said["sent"], intended + said["intended"]
        return said["ok"] / done.cpu_s

    def peer(name):
        path = oha_path if name == "oha" else find("hey")
        if not path:
            raise Missing(name)

        def run():
            if name == "oha":
                good, cpu_s, _ = oha(host, path, nginx.small, "-q", FIXED_RATE, seconds=seconds)
            else:
                good, cpu_s, _ = hey(host, path, nginx.small, FIXED_RATE, seconds)
            reached.setdefault(name, []).append(good / seconds)
            return good / cpu_s

        return run

    missing = []
    for name, reach in (("oha", ">= 1.5"), ("hey", ">= 2.0")):
        try:
            run = peer(name)
        except Missing as why:
            missing.append(str(why))
            continue
        pairs = alternating(rounds, f"{FIXED_RATE:,}/s beside {name}", own, run)
        note = f"requests per CPU-second, open loop, {CONNECTIONS} connections; {name} reached "
        note += f"{statistics.median(reached[name]):,.0f}/s of {FIXED_RATE:,}/s"
        result.append(per_second(f"load: at {FIXED_RATE:,}/s, per CPU-second, {name}", pairs, name, reach, note))
    if not result:
        for index in range(rounds):
            tell(f"bench: {FIXED_RATE:,}/s, round {index + 1} of {rounds}")
            own()
    note = f"{sent:,} of {intended:,} sent" + "".join(f"; {name} is missing" for name in missing)
    late = f"load: lag at {FIXED_RATE:,}/s"
    result.append(Figure(f"{late}, p50", "us", lags["p50_s"], "<= 60 us", note=note))
    result.append(Figure(f"{late}, p99", "us", lags["p99_s"], "<= 1000 us"))
    return result


def late(host, binary, nginx, rounds, seconds):
    """How late requests start when there is hardly anything to do."""
    lags = []
    for index in range(rounds):
        tell(f"bench: {LATE_RATE:,}/s, round {index + 1} of {rounds}")
        lags.append(squall(host, binary, nginx.small, LATE_RATE, seconds)[1]["lag"]["p50_s"])
    return [Figure(f"load: lag at {LATE_RATE:,}/s, p50", "us", lags, "<= 50 us")]


def streamed(host, binary, rounds, seconds):
    """HTTP/2 without TLS against nghttpd: some connections with some streams each, all busy."""
    asked = subprocess.run([binary, "load", "--help"], capture_output=True, text=True, timeout=10, check=False)
    if "--streams" not in asked.stdout:
        raise Missing("the option --streams of squall load, for HTTP/2")
    server, client = find("nghttpd"), find("h2load")
    if not server or not client:
        raise Missing("nghttpd or h2load")
    folder = host.folder / "h2"
    folder.mkdir(exist_ok=True)
    (folder / "small").write_text("hello world\n")
    port = free_port()
    # Alone with its address, it would listen on every interface.
    argv = [server, "--no-tls", "-a", "127.0.0.1", "-d", folder, port]
    process = host.start(argv, cpu=SERVER_CPU)
    wait_port(port, process)
    url, reached = f"http://127.0.0.1:{port}/small", None

    def peer():
        nonlocal reached
        argv = [client, "-t1", f"-c{STREAMED}", f"-m{STREAMED}", "-D", seconds, url]
        done = host.good(argv, cpu=CLIENT_CPU, deadline=seconds + 30)
        good = re.search(r"(\d+) succeeded", done.out)
        if not good or not int(good[1]):
            raise Broken(f"h2load met errors:\n{done.out}")
        reached = int(good[1]) / seconds
        return int(good[1]) / done.cpu_s

    def own():
        options = ["--http", "2", "--connections", STREAMED, "--streams", STREAMED]
        done, said = squall(host, binary, url, reached * OVERLOAD, seconds, *options, deadline=f"{4 * seconds}s")
        return said["ok"] / done.cpu_s

    try:
        pairs = alternating(rounds, "HTTP/2 beside h2load", own, peer)
    finally:
        host.stop(process)
    note = f"requests per CPU-second, {STREAMED} connections x {STREAMED} streams, 12-byte body of nghttpd on the other core"
    return [per_second("load: HTTP/2 saturated, per CPU-second", pairs, "h2load", ">= 1.0", note)]


@contextlib.contextmanager
def stalling(host):
    """A server that answers within a millisecond, but for one stall."""
    argv = [sys.executable, KNOWN, 0, 1000, 0.2, "--stall", STALL_AT_S, STALL_S]
    process = host.start(argv, cpu=SERVER_CPU, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
    finally:
        host.stop(process)


def stalled(host, binary, oha_path, rounds, lasting):
    """What arrives in a stall of 1 s waits 1 - t. Of the requests of N seconds, those that wait longer than 1 - N/100
    are one in a hundred: that is the 99th percentile, whatever the tool. What the peers say is asked once."""
    theory = STALL_S - lasting / 100
    told, ours = {}, []

    def tell_of(name, run):
        with stalling(host) as url:
            told.setdefault(name, []).append(run(url))

    for index in range(rounds):
        tell(f"bench: a stall, round {index + 1} of {rounds}")
        with stalling(host) as url:
            said = squall(host, binary, url, STALL_RATE, lasting, "--connections", 2000)[1]
            ours.append(said["response"]["p99_s"])
        if index:
            continue
        if find("wrk"):
            pattern = r"99%\s+([\d.]+)(us|ms|s)"
            unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0}

            def closed(url):
                found = re.search(pattern, wrk(host, url, 10, lasting).out)
                return float(found[1]) * unit[found[2]]

            tell_of("wrk, closed, corrected afterwards", closed)
        if path := find("hey"):
            tell_of("hey -q", lambda url: hey(host, path, url, STALL_RATE, lasting, connections=10)[2])
        if oha_path:
            ways = (("oha -q", ()), ("oha -q --latency-correction", ("--latency-correction",)))
            for name, more in ways:
                options = ("-q", STALL_RATE, *more)
                tell_of(name, lambda url: oha(host, oha_path, url, *options, seconds=lasting, connections=10)[2])
    off = [abs(p99 / theory - 1) for p99 in ours]
    peers = {name: [abs(p99 / theory - 1) for p99 in values] for name, values in told.items()}
    note = f"{STALL_S:.0f} s at {STALL_RATE:,}/s, over {lasting} s: by theory p99 is {theory * 1e3:.0f} ms; squall says "
    note += f"{statistics.median(ours) * 1e3:.1f} ms"
    note += "".join(f", {name} {values[0] * 1e3:.3g} ms" for name, values in told.items())
    return [Figure("load: p99 over a stall, off the theory", "%", off, "<= 2 %", 100 * max(off), peers=peers, note=note)]
