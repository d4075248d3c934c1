"""What the server counts, in the text format of Prometheus. Standard library only."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
Labels = tuple[tuple[str, str], ...]


@dataclass(kw_only=True)
class _Histogram:
    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0
    number: int = 0

    def add(self, value: float) -> None:
        self.counts = self.counts or [0] * len(self.bounds)
        for index, bound in enumerate(self.bounds):
            self.counts[index] += value <= bound
        self.total += value
        self.number += 1


class Metrics:
    """Counters and histograms that any thread may add to. Labels are words of ours, never of a request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: Counter[tuple[str, Labels]] = Counter()
        self._histograms: dict[str, _Histogram] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Adds to the counter `avcap_NAME_total`."""
        with self._lock:
            self._counters[name, tuple(sorted(labels.items()))] += amount  # type: ignore[assignment]

    def observe(self, name: str, value: float, *, bounds: Sequence[float] = SECONDS) -> None:
        """Adds a value to the histogram `avcap_NAME`."""
        with self._lock:
            self._histograms.setdefault(name, _Histogram(bounds=bounds)).add(value)

    def value(self, name: str, **labels: str) -> float:
        """-> what a counter has reached, summed over the labels that are not given."""
        asked = set(labels.items())
        with self._lock:
            return sum(value for (key, have), value in self._counters.items() if key == name and asked <= set(have))

    def text(self, gauges: Mapping[str, float]) -> str:
        """Values of this moment -> all of it as Prometheus reads it."""
        with self._lock:
            lines = []
            for name in sorted({name for name, _ in self._counters}):
                lines.append(f"# TYPE avcap_{name}_total counter")
                rows = sorted((labels, value) for (key, labels), value in self._counters.items() if key == name)
                lines += [f"avcap_{name}_total{_shown(labels)} {value:g}" for labels, value in rows]
            for name, one in sorted(self._histograms.items()):
                lines.append(f"# TYPE avcap_{name} histogram")
                for bound, count in zip(one.bounds, one.counts, strict=True):
                    lines.append(f'avcap_{name}_bucket{{le="{bound:g}"}} {count}')
                lines.append(f'avcap_{name}_bucket{{le="+Inf"}} {one.number}')
                lines += [f"avcap_{name}_sum {one.total:g}", f"avcap_{name}_count {one.number}"]
        for name, value in gauges.items():
            lines += [f"# TYPE avcap_{name} gauge", f"avcap_{name} {value:g}"]
        return "\n".join(lines) + "\n"


def _shown(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""
