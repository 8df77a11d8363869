"""How fast the command line answers: `check` of many experiments, `--help`."""

import peers
from figures import Figure
from host import tell

EXPERIMENTS = 1000
STARTS = 20


def check(host, squall, root, rounds):
    """A thousand copies in one call; the time of the whole process."""
    folder = host.folder / "check"
    folder.mkdir()
    text = (root / "scenarios" / "quickstart.yaml").read_text()
    files = []
    for index in range(EXPERIMENTS):
        file = folder / f"copy-{index}.yaml"
        file.write_text(text)
        files.append(file)
    rates = []
    for index in range(rounds):
        tell(f"bench: check, round {index + 1} of {rounds}")
        done = host.good([squall, "check", *files], deadline=60)
        rates.append(EXPERIMENTS / done.wall_s)
    note = f"{EXPERIMENTS:,} copies of scenarios/quickstart.yaml in one call, the whole process"
    return Figure("check: experiments", "/s", rates, ">= 1000 /s", note=note)


def starts(host, squall):
    """From start to end of a process that only prints its help."""
    ways = {"squall": [squall, "--help"]}
    for name, option in (("haproxy", "-v"), ("nginx", "-v")):
        path = peers.find(name)
        if path:
            ways[name] = [path, option]
    tell(f"bench: start time, {STARTS} runs")
    seen = {name: [] for name in ways}
    for _ in range(STARTS):
        for name, argv in ways.items():
            seen[name].append(host.good(argv, deadline=10).wall_s)
    own = seen.pop("squall")
    return Figure("--help: start to end", "ms", own, "<= 20 ms", peers=seen, note="peers print their version")


def figures(host, squall, root, rounds):
    """Both."""
    return [check(host, squall, root, rounds), starts(host, squall)]
