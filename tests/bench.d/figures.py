"""What the bench says: figures with what to reach, as a table and as JSON."""

import statistics
from dataclasses import dataclass, field

UNITS = {"us": 1e6, "ms": 1e3, "s": 1.0, "MiB": 1.0, "MB/s": 1e-6, "x": 1.0, "/s": 1.0, "MiB/min": 1.0}


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


def cell(samples, unit):
    """`median (min-max)`."""
    scale = UNITS[unit]
    if not samples:
        return "-"
    text = f"{number(statistics.median(samples) * scale)} {unit}"
    if len(samples) > 1:
        text += f" ({number(min(samples) * scale)}..{number(max(samples) * scale)})"
    return text


def table(figures):
    """The result as text."""
    head = ("figure", "squall", "peer", "ratio", "reach", "")
    rows = [head]
    for figure in figures:
        peers = [f"{name} {cell(samples, figure.unit)}" for name, samples in figure.peers.items()] or [""]
        ratio = ""
        if figure.ratio:
            ratio = f"{number(statistics.median(figure.ratio))} ({number(min(figure.ratio))}..{number(max(figure.ratio))})"
            ratio += f" of {figure.ratio_of}"
        rows.append((figure.name, cell(figure.samples, figure.unit), peers[0], ratio, figure.reach, figure.verdict()))
        rows.extend(("", "", peer, "", "", "") for peer in peers[1:])
        if figure.note:
            rows.append(("  " + figure.note,))
    widths = [max(len(row[i]) for row in rows if len(row) == len(head)) for i in range(len(head))]
    lines = []
    for row in rows:
        if len(row) == 1:
            lines.append(row[0])
        else:
            lines.append("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
        if row is head:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)
