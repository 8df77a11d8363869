"""How long a fault outlives its end: after an abort, and after SIGKILL of the engine.

A standing lab of the bench's own; a relay and a process are broken; what holds is asked of the relay's control socket
and of /proc, never of squall.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time

import peers
from figures import Figure
from host import Broken, tell

LOOK_EVERY = 0.005
FAULTS = 2
EXPERIMENT = """\
squall: v1
experiment: bench-restoring
question: How long does a fault outlive its end?
lab: edge
warm-up: 0s
load:
  - checkout:
      open: {{url: "http://${{lab.edge}}/checkout", arrivals: [{{hold: {{rate: 50/s, for: 60s}}}}]}}
objectives:
  - checkout: {{availability: ">= 1%"}}
timeline:
  - at: 3s
    for: 30s
    faults:
      - relay-latency: {{service: kv, delay: 20ms}}
      - process-pause: {{instance: {paused}}}
{guards}"""
GUARD = """\
guards:
  - abort: {when: "errors of checkout > 25% for 1s"}
"""


class Lab:
    """The standing lab: what the bench asks it about."""

    def __init__(self, host, squall):
        self.host, self.squall = host, squall
        done = host.good([squall, "lab", "up", "--json"], deadline=20)
        status = json.loads(done.out)
        self.relay = next(relay for relay in status["relays"] if relay["name"] == "kv-1")
        self.pids = {one["name"]: one["process"]["pid"] for one in status["instances"]}

    def down(self):
        """Takes it down."""
        self.host.good([self.squall, "lab", "down"], deadline=20)

    def relay_faults(self):
        """How many faults the relay carries before kv-1 now."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(2)
            control.connect(self.relay["control"])
            control.sendall(b'{"op":"list"}\n')
            with control.makefile("rb") as lines:
                routes = json.loads(lines.readline())["routes"]
        return sum(len(route["faults"]) for route in routes if route["name"] == self.relay["name"])

    def paused(self, name):
        """Whether the instance is stopped."""
        with open(f"/proc/{self.pids[name]}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "T"

    def broken(self, name):
        """What is broken now, of both."""
        return int(self.relay_faults() > 0) + int(self.paused(name))

    def wait(self, name, wanted, within):
        """Waits until so much is broken; returns when that was seen."""
        until = time.perf_counter() + within
        while time.perf_counter() < until:
            if self.broken(name) == wanted:
                return time.perf_counter()
            time.sleep(LOOK_EVERY)
        raise Broken(f"after {within:.0f} s {self.broken(name)} of {FAULTS} faults are live instead of {wanted}")


@contextlib.contextmanager
def lab(host, squall):
    """A standing lab for a while."""
    standing = Lab(host, squall)
    try:
        yield standing
    finally:
        standing.down()


def begin(host, squall, index, paused, guards):
    """Starts a run with records of its own."""
    folder = host.folder / f"restoring-{index}"
    folder.mkdir()
    file = folder / "experiment.yaml"
    file.write_text(EXPERIMENT.format(paused=paused, guards=guards))
    with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
        argv = [squall, "run", file, "--runs", folder / "runs", "--json"]
        return folder, host.start(argv, stdout=out, stderr=err)


def aborted(host, squall, standing, index, how):
    """One abort; seconds by the record, and as seen from outside."""
    paused, guards = ("auth-1", GUARD) if how == "guard" else ("catalog-1", "")
    folder, process = begin(host, squall, index, paused, guards)
    standing.wait(paused, FAULTS, 20)
    seen = None
    if how == "SIGINT":
        time.sleep(1.2)
        sent = time.perf_counter()
        process.send_signal(signal.SIGINT)
        seen = standing.wait(paused, 0, 10) - sent
    try:
        process.wait(30)
    except subprocess.TimeoutExpired as late:
        raise Broken(f"the run did not end within 30 s after its abort by {how}") from late
    host.stop(process)
    if process.returncode != 4:
        tail = (folder / "err").read_text()[-1500:]
        raise Broken(f"the run that was aborted by {how} ended with {process.returncode} instead of 4:\n{tail}")
    restoration = json.loads((folder / "out").read_text())["restoration"]
    if not restoration["verified"]:
        raise Broken(f"the restoration is not verified: {restoration}")
    return restoration["seconds"], seen


def killed(host, squall, standing, index):
    """One SIGKILL of the engine; seconds until nothing is broken."""
    _, process = begin(host, squall, index, "catalog-1", "")
    standing.wait("catalog-1", FAULTS, 20)
    time.sleep(0.7)
    if standing.broken("catalog-1") != FAULTS:
        raise Broken("a fault ended by itself before the engine was killed")
    began = time.perf_counter()
    os.kill(process.pid, signal.SIGKILL)
    process.wait(5)
    host.living.remove(process)
    return standing.wait("catalog-1", 0, 30) - began


def toxiproxy_after_kill(host, server, patience):
    """Whether a toxic is still there some time after its maker was killed."""
    upstream = peers.free_port()
    process, _, api = peers.toxiproxy_hop(host, server, upstream)
    body = json.dumps({"name": "slow", "type": "latency", "attributes": {"latency": 20}})
    maker = (
        "import time, urllib.request as u; "
        f"u.urlopen(u.Request('http://127.0.0.1:{api}/proxies/hop/toxics', method='POST', data={body.encode()!r})); "
        "print('made', flush=True); time.sleep(60)"
    )
    maker = host.start([os.sys.executable, "-c", maker], stdout=subprocess.PIPE)
    if maker.stdout.readline().strip() != b"made":
        raise Broken("no toxic could be made")
    os.kill(maker.pid, signal.SIGKILL)
    maker.wait(5)
    host.living.remove(maker)
    time.sleep(patience)
    left = len(peers.call(api, "GET", "/proxies/hop/toxics"))
    host.stop(process)
    return left


def figures(host, squall, toxiproxy, rounds, patience):
    """Aborts by the operator and by a guard, then kills."""
    recorded, observed, by_kill = [], [], []
    with lab(host, squall) as standing:
        for index in range(rounds):
            for how in ("SIGINT", "guard"):
                tell(f"bench: abort by {how}, round {index + 1} of {rounds}")
                seconds, seen = aborted(host, squall, standing, f"{how}-{index}", how)
                recorded.append(seconds)
                observed.extend([seen] if seen is not None else [])
            tell(f"bench: SIGKILL of the engine, round {index + 1} of {rounds}")
            by_kill.append(killed(host, squall, standing, f"kill-{index}"))
    note = "of the engine; standing lab; a relay and a paused process, looked at every 5 ms from outside"
    if toxiproxy:
        left = toxiproxy_after_kill(host, toxiproxy, patience)
        note += f"; Toxiproxy {patience:.0f} s after its client was killed: {left} of 1 toxics still there"
    return [
        Figure(
            "abort to restored (record)",
            "ms",
            recorded,
            "<= 200 ms",
            judged=max(recorded) * 1e3,
            note="the worst counts; SIGINT and a guard in turn; no peer publishes this",
        ),
        Figure("SIGINT to restored (observed)", "ms", observed),
        Figure("SIGKILL to restored (observed)", "ms", by_kill, "<= 1000 ms", judged=max(by_kill) * 1e3, note=note),
    ]
