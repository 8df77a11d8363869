"""Reads a log of latencies with HdrHistogram's own package: read_log.py LOG prints what it holds as JSON."""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader


def main():
    """All intervals, added up."""
    total, counts, starts = HdrHistogram(1, 600_000_000, 3), [], []
    reader = HistogramLogReader(sys.argv[1], total)
    while (interval := reader.get_next_interval_histogram()) is not None:
        total.add(interval)
        counts.append(interval.get_total_count())
        starts.append(interval.get_start_time_stamp() / 1e3)
    percentiles = {f"p{p}": total.get_value_at_percentile(p) / 1e6 for p in (50, 90, 99, 99.9)}
    whole = {"count": total.get_total_count(), "max": total.get_max_value() / 1e6, "mean": total.get_mean_value() / 1e6}
    print(json.dumps({"counts": counts, "starts": starts, **percentiles, **whole}))


if __name__ == "__main__":
    main()
