"""What the engine counts, as Prometheus reads it: the names of vLLM, so that its dashboards work, under `kogia:`.

While it runs the engine adds to plain numbers here; Prometheus' types are made of them when somebody asks.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
               80.0, 160.0, 640.0, 2560.0)  # fmt: skip
NEXT_TOKEN = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
              5.0, 10.0, 20.0, 40.0, 80.0)  # fmt: skip
REASONS = ("stop", "length", "abort", "error")


class Histogram:
    """Counts of observations by upper bound (seconds), and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._edges = np.array(bounds)
        self.counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """The same value, some times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def observe_all(self, values: np.ndarray) -> None:
        """Many values."""
        if len(values) == 1:
            return self.observe(float(values[0]))
        self.counts += np.bincount(np.searchsorted(self._edges, values), minlength=len(self.counts))
        self.sum += float(values.sum())

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """As Prometheus wants it: cumulative."""
        labels = [*map(str, self.bounds), "+Inf"]
        buckets = list(zip(labels, np.cumsum(self.counts).tolist(), strict=True))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self.sum)


class Metrics:
    """Numbers of one engine. gauges(): what is true right now, by name."""

    def __init__(self, gauges: Callable[[], dict[str, float]]) -> None:
        self._gauges = gauges
        self.prompt_tokens = self.generation_tokens = 0
        self.draft_tokens = self.accepted_tokens = self.drafts = 0
        self.accepted_at: Counter[int] = Counter()  # by position in the draft, from 0
        self.finished: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.first_token, self.next_token = Histogram(FIRST_TOKEN), Histogram(NEXT_TOKEN)
        self.registry = CollectorRegistry()
        self.registry.register(self)  # type: ignore[arg-type]

    def count_drafts(self, drafted: np.ndarray, accepted: np.ndarray) -> None:
        """Of each sequence of a step: how many drafts it had and how many of them, from the first, were right."""
        self.drafts += int((drafted > 0).sum())
        self.draft_tokens += int(drafted.sum())
        self.accepted_tokens += int(accepted.sum())
        for position in range(int(accepted.max(initial=0))):
            self.accepted_at[position] += int((accepted > position).sum())

    def text(self) -> str:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    def collect(self) -> Iterable[Metric]:
        """Called by the registry."""
        now = self._gauges()
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"kogia:{name}", text, value=now[name])
        for name, text in _COUNTERS.items():
            value = now[name] if name in now else getattr(self, name)
            yield CounterMetricFamily(f"kogia:{_LONG.get(name, name)}", text, value=value)
        yield self._labelled("request_success", "Requests that ended, by how.", "finished_reason", self.finished)
        positions = {str(at): n for at, n in sorted(self.accepted_at.items())}
        yield self._labelled(
            "spec_decode_num_accepted_tokens_per_pos", "Drafts that were right, by position.", "position", positions
        )
        yield self.first_token.family("kogia:time_to_first_token_seconds", "From arrival to the first token.")
        yield self.next_token.family("kogia:inter_token_latency_seconds", "From one token to the next.")

    def _labelled(self, name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
        family = CounterMetricFamily(f"kogia:{name}", text, labels=[label])
        for value, count in values.items():
            family.add_metric([value], count)
        return family


_GAUGES = {
    "num_requests_running": "Sequences that are being computed.",
    "num_requests_waiting": "Sequences in the waiting line.",
    "kv_cache_usage_perc": "Used share of the cache's blocks, from 0 to 1.",
}
_COUNTERS = {
    "prompt_tokens": "Prompt tokens of the requests that began.",
    "generation_tokens": "Tokens sampled.",
    "prefix_cache_queries": "Prompt tokens that were looked for in the prefix cache.",
    "prefix_cache_hits": "Prompt tokens found there.",
    "num_preemptions": "Sequences sent back into the line because the cache was full.",
    "drafts": "Steps of a sequence with a draft.",
    "draft_tokens": "Tokens drafted.",
    "accepted_tokens": "Drafted tokens that were right.",
}
_LONG = {
    "drafts": "spec_decode_num_drafts",
    "draft_tokens": "spec_decode_num_draft_tokens",
    "accepted_tokens": "spec_decode_num_accepted_tokens",
}
