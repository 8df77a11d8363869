"""Network faults in the kernel beside tc: how long it takes to make one and to take it back, and how long one outlives squall.

In a network namespace of the bench's own. The change is the same for both: packets to one address, and no others, are
limited to 10 Mbit/s. tc is given its best: all of its work in two processes (`ip -batch`, `tc -batch`), started by a
process that is in the namespace already.
"""

import json
import signal
import statistics
import time

import peers
from figures import Figure
from host import Broken, tell

NAME = "squall-bench"
# The steps of an injection at which squall is killed, and what it injects.
STEPS = ("intended", "held", "applied", "journalled", "undoing", "undone")
KILLED = (
    ["network-rate", "--interface", "near", "--rate", "10mbit", "--by", "tbf"],
    ["network-partition", "--to", "10.77.0.2"],
)
# Longer than this is a leak.
LEAK_S = 10.0
IPS = [["link add ifb9 type ifb", "link set ifb9 up"], ["link del ifb9"]]
TCS = [
    [
        "qdisc add dev ifb9 root tbf rate 10mbit burst 32k latency 1s",
        "qdisc add dev near clsact",
        "filter add dev near egress protocol ip u32 match ip dst 10.77.0.2 action mirred egress redirect dev ifb9",
    ],
    ["filter del dev near egress", "qdisc del dev near clsact"],
]
# Runs in the namespace: it starts and awaits, and counts the time of it.
PEER = """
import json, os, sys, time
rounds, make, undo = json.loads(sys.argv[1])
def run(commands):
    began = time.perf_counter()
    for argv, text in commands:
        out, into = os.pipe()
        os.write(into, text.encode())
        os.close(into)
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out, 0)])
        os.close(out)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            sys.exit(f"{argv}: {text}")
    return time.perf_counter() - began
print(json.dumps([[run(make), run(undo)] for _ in range(rounds)]))
"""


class Space:
    """A namespace with a cable whose other end is in it as well."""

    def __init__(self, host):
        self.host = host
        for argv in (
            ["ip", "netns", "add", NAME],
            ["ip", "-n", NAME, "link", "add", "near", "type", "veth", "peer", "name", "far"],
            ["ip", "-n", NAME, "addr", "add", "10.77.0.1/24", "dev", "near"],
            ["ip", "-n", NAME, "link", "set", "near", "up"],
            ["ip", "-n", NAME, "link", "set", "far", "up"],
        ):
            done = host.run(argv, deadline=10)
            if done.code != 0:
                raise peers.Missing(f"a network namespace ({done.err.strip()})")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.host.run(["ip", "netns", "del", NAME], deadline=10)

    def squall(self, example, rounds, *parts):
        """Seconds to apply, until packets are free again, and until nothing is left."""
        return json.loads(self.host.good([example, NAME, rounds, *parts], deadline=120).out)

    def tc(self, rounds):
        """Seconds to make and to take back, of each round."""
        make, undo = (
            [(["ip", "-batch", "-"], "\n".join(ips)), (["tc", "-batch", "-"], "\n".join(tcs))]
            for ips, tcs in zip(IPS, TCS)
        )
        asked = json.dumps([rounds, make, undo[::-1]])
        argv = ["nsenter", f"--net=/run/netns/{NAME}", "python3", "-c", PEER, asked]
        return list(zip(*json.loads(self.host.good(argv, deadline=120).out)))


    def picture(self):
        """What the kernel has in the namespace, without counters."""
        looks = (["tc", "qdisc"], ["tc", "filter", "show", "dev", "near", "egress"], ["ip", "-br", "link"], ["nft", "list", "ruleset"])
        argv = ["nsenter", f"--net=/run/netns/{NAME}"]
        return [self.host.run([*argv, *look], deadline=10).out for look in looks]

    def killed(self, squall, fault, step, before):
        """Seconds from a SIGKILL of squall until all is as before; none if it is not for long."""
        argv = [squall, "inject", *fault, "--netns", NAME, "--for", "200ms", "--crash-at", f"{step}:kill"]
        if self.host.run(argv, deadline=20).code != -signal.SIGKILL:
            raise Broken(f"squall was not killed when a {fault[0]} was {step}")
        began = time.perf_counter()
        while time.perf_counter() < began + LEAK_S:
            if self.picture() == before:
                return time.perf_counter() - began
        return None


def worst(samples):
    """The 99th percentile, in milliseconds."""
    return statistics.quantiles(samples, n=100, method="inclusive")[98] * 1e3


def kills(host, squall, space):
    """SIGKILL at each step of each fault."""
    before, took = space.picture(), []
    for fault in KILLED:
        tell(f"bench: SIGKILL at each step of {fault[0]}")
        took += [space.killed(squall, fault, step, before) for step in STEPS]
    host.good([squall, "recover"], deadline=20)
    seen = [seconds for seconds in took if seconds is not None]
    leaks = len(took) - len(seen)
    note = f"{len(took)} kills of {len(KILLED)} faults at {len(STEPS)} steps, {leaks} leaks; the worst counts, each look takes some ms"
    judged = float("inf") if leaks else max(seen) * 1e3
    return Figure("network fault: SIGKILL to nothing left", "ms", seen, "<= 1000 ms", judged, note=note)


def figures(host, squall, example, rounds, repeats):
    """Squall and tc in turn."""
    own, other = {"apply": [], "free": [], "undo": []}, ([], [])
    ratios, wide = ([], []), []
    with Space(host) as space:
        for index in range(repeats):
            tell(f"bench: network faults, round {index + 1} of {repeats}")
            seen, made = space.squall(example, rounds), space.tc(max(5, rounds // 4))
            for name, samples in seen.items():
                own[name] += samples
            for side, name in enumerate(("apply", "undo")):
                other[side].extend(made[side])
                ratios[side].append(statistics.median(made[side]) / statistics.median(seen[name]))
        networks = ",".join(f"10.0.{number}.0/24" for number in range(20))
        ports = ",".join(str(8000 + 10 * number) for number in range(10))
        wide = space.squall(example, max(5, rounds // 4), f"to={networks}", f"ports={ports}")["apply"]
        killed = kills(host, squall, space)
    if not all(own.values()):
        raise Broken("no network fault was measured")
    batch = "tc: one `ip -batch` and one `tc -batch`"
    kernel = "done when nobody sees the device any more; tc's last answer comes when the kernel has freed it (rcu_barrier)"
    return [
        Figure("network fault: inject", "ms", own["apply"], "<= 5 ms", worst(own["apply"]), note="p99 counts"),
        Figure("  against tc", "ms", own["apply"], ">= 3 x", peers={"tc": list(other[0])}, ratio=ratios[0], ratio_of="its time", note=batch),
        Figure("network fault: undo, packets are free", "ms", own["free"], "<= 5 ms", worst(own["free"]), note="p99 counts"),
        Figure("network fault: undo, nothing is left", "ms", own["undo"], "<= 5 ms", worst(own["undo"]), note=f"p99 counts; {kernel}"),
        Figure("  against tc", "ms", own["undo"], ">= 3 x", peers={"tc": list(other[1])}, ratio=ratios[1], ratio_of="its time", note=batch),
        Figure("200 filters (20 networks x 10 ports)", "ms", wide, "<= 100 ms", max(wide) * 1e3, note="one program; the worst counts"),
        killed,
    ]
