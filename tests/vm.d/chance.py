"""How far what was seen lies from what was asked for, in standard deviations of mere chance. Pure, but for the tables of
delays, which are iproute2's."""

import bisect
import math
import random
import re
from pathlib import Path

# What 99 % of all draws stay within, and 99.99 %.
USUAL, FARTHEST = 2.576, 3.89
# The same 99 % for the largest gap between two distributions, times the root of the count.
GAP = 1.63
TABLES = "/usr/lib*/*/tc/{}.dist", "/usr/lib*/tc/{}.dist", "/usr/share/tc/{}.dist"
TRIALS, WARM_UP = 200, 200


def of_share(hits, count, share):
    """Of a share of independent draws."""
    return abs(hits / count - share) / math.sqrt(share * (1 - share) / count) if count else math.inf


def of_distribution(values, below):
    """Of values, each drawn from the distribution with this share below each point."""
    values, count = sorted(values), len(values)
    gaps = [max((rank + 1) / count - below(value), below(value) - rank / count) for rank, value in enumerate(values)]
    return max(gaps, default=math.inf) * math.sqrt(count) / GAP * USUAL


def uniform(value):
    """Below a value, of numbers from -1 to 1."""
    return min(max((value + 1) / 2, 0.0), 1.0)


def tabled(kind):
    """The distribution of one of iproute2's tables, in jitters; none where it is not installed."""
    paths = [path for pattern in TABLES for path in Path("/").glob(pattern.format(kind)[1:])]
    if not paths:
        return None
    lines = [line for line in paths[0].read_text().splitlines() if not line.startswith("#")]
    table = sorted(int(number) / 8192 for number in re.findall(r"-?\d+", " ".join(lines)))
    # Numbers between two entries do not come; halfway is fair to both sides.
    return lambda value: (bisect.bisect_left(table, value) + bisect.bisect_right(table, value)) / 2 / len(table)


def bursts(lost):
    """The share that is lost, and how many are in a row on average."""
    runs = sum(1 for before, now in zip([False, *lost], lost) if now and not before)
    return sum(lost) / max(len(lost), 1), sum(lost) / max(runs, 1)


def of_bursts(lost, model, between=0.0):
    """Of the share and of the rows of losses, by a model that is a generator of draws: each with what it should be. So many
    packets of others, at most one, come between two of ours."""
    draw = random.Random(1).random
    trials = []
    for _ in range(TRIALS):
        draws = model(draw)
        ours = [next(draws) if draw() >= between else (next(draws), next(draws))[1] for _ in range(WARM_UP + len(lost))]
        trials.append(bursts(ours[WARM_UP:]))
    found = []
    for seen, all_of_it in zip(bursts(lost), zip(*trials)):
        mean = sum(all_of_it) / TRIALS
        deviation = math.sqrt(sum((one - mean) ** 2 for one in all_of_it) / (TRIALS - 1)) or math.inf
        found.append((seen, mean, abs(seen - mean) / deviation))
    return found


def together(share, correlation):
    """Losses by draws of which each is partly the one before, as netem's are."""

    def draws(draw):
        last = 0.5
        while True:
            last = (1 - correlation) * draw() + correlation * last
            yield last

    some = draws(random.Random(2).random)
    limit = sorted(next(some) for _ in range(200_000))[int(share * 200_000)]
    return lambda draw: (last < limit for last in draws(draw))


def gilbert(to_bad, to_good):
    """Losses of all packets in a bad state."""

    def draws(draw):
        bad = False
        while True:
            bad = draw() >= to_good if bad else draw() < to_bad
            yield bad

    return draws


def states(p13, p31, p32, p23, p14):
    """Salsano's four states: received in a gap (1) or in a burst (2), lost in a burst (3) or alone (4)."""
    ways = {1: [(p14, 4), (p13, 3)], 2: [(p23, 3)], 3: [(p32, 2), (p31, 1)], 4: [(1.0, 1)]}

    def draws(draw):
        state = 1
        while True:
            at = draw()
            for chance, other in ways[state]:
                if at < chance:
                    state = other
                    break
                at -= chance
            yield state >= 3

    return draws
