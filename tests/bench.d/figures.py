"""What the bench says: figures with what to reach, as a table and as JSON."""

import statistics
import textwrap
from dataclasses import dataclass, field

UNITS = {"us": 1e6, "ms": 1e3, "s": 1.0, "MiB": 1.0, "MB/s": 1e-6, "x": 1.0, "%": 100.0, "/s": 1.0, "MiB/min": 1.0}


@dataclass
class Figure:
    """One figure. Samples are in SI units; `reach` in the unit shown, or a ratio."""

    name: str
    unit: str
    samples: list
    reach: str = ""
    judged: float | None = None
    peers: dict = field(default_factory=dict)
    ratio: list = field(default_factory=list)
    ratio_of: str = ""
    note: str = ""

    def subject(self):
        """The number that `reach` speaks of: as told, else the median ratio, else the median in the figure's unit."""
        if self.judged is not None:
            return self.judged
        if self.ratio_of:
            return statistics.median(self.ratio) if self.ratio else None
        return statistics.median(self.samples) * UNITS[self.unit] if self.samples else None

    def verdict(self):
        """Whether it is reached; no data is unknown."""
        if not self.reach:
            return ""
        subject = self.subject()
        if subject is None:
            return "unknown"
        sign, limit = self.reach.split()[:2]
        limit = float(limit)
        return "reached" if (subject <= limit if sign == "<=" else subject >= limit) else "MISSED"

    def document(self):
        """For --json: SI units, medians with their ranges."""
        return {
            "name": self.name,
            "unit": {"us": "s", "ms": "s", "MB/s": "bytes/s"}.get(self.unit, self.unit),
            "squall": spread(self.samples),
            "peers": {name: spread(samples) for name, samples in self.peers.items()},
            "ratio": dict(spread(self.ratio), to=self.ratio_of) if self.ratio else None,
            "judged": self.subject() if self.reach else None,
            "reach": self.reach or None,
            "verdict": self.verdict() or None,
            "note": self.note or None,
        }


def spread(samples):
    """Median, smallest, largest and how many."""
    if not samples:
        return {"median": None, "min": None, "max": None, "samples": 0}
    return {
        "median": statistics.median(samples),
        "min": min(samples),
        "max": max(samples),
        "samples": len(samples),
    }


def number(value):
    """Three digits, or whole numbers."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cells(samples, unit):
    """The median with its unit, and `min..max`."""
    if not samples:
        return "-", ""
    shown = [number(value * UNITS[unit]) for value in (statistics.median(samples), min(samples), max(samples))]
    return f"{shown[0]} {unit}", f"{shown[1]}..{shown[2]}" if len(samples) > 1 else ""


HEAD = ("figure", "who", "median", "range", "ratio", "reach", "")


def rows_of(figure):
    """One row for squall and one for each peer."""
    ratio = ""
    if figure.ratio:
        middle, low, high = statistics.median(figure.ratio), min(figure.ratio), max(figure.ratio)
        ratio = f"{number(middle)} of {figure.ratio_of} ({number(low)}..{number(high)})"
    yield (figure.name, "squall", *cells(figure.samples, figure.unit), ratio, figure.reach, figure.verdict())
    for name, samples in figure.peers.items():
        yield ("", name, *cells(samples, figure.unit), "", "", "")


def table(figures):
    """The result as text, each figure with its note below it."""
    blocks = [([HEAD], "")] + [(list(rows_of(figure)), figure.note) for figure in figures]
    every = [row for rows, _ in blocks for row in rows]
    widths = [max(len(row[column]) for row in every) for column in range(len(HEAD))]
    lines = []
    for rows, note in blocks:
        lines.extend("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        if rows[0] is HEAD:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        lines.extend(textwrap.wrap(note, 100, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)
