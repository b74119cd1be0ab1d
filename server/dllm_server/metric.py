"""A metric's one description: what registers or collects it also documents it. For the server and the
operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

UNITS = frozenset({"seconds", "bytes", "tokens", "pages", "pods", "requests", "resources", "rows", "steps"})

Values = float | Mapping[str, float]
Key = TypeVar("Key", str, tuple[str, ...])


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """``name`` is without the suffixes that a counter or a histogram gets, ``text`` a line. The unit is the
    last of ``UNITS`` in the name unless said."""

    kind: Kind
    name: str
    text: str
    labels: tuple[str, ...] = ()
    said_unit: str | None = None

    @property
    def unit(self) -> str:
        if self.said_unit is not None:
            return self.said_unit
        return next((word for word in reversed(self.name.split("_")) if word in UNITS), "")

    @property
    def samples(self) -> tuple[str, ...]:
        """Names that a query may use."""
        match self.kind:
            case Kind.COUNTER:
                return (f"{self.name}_total",)
            case Kind.GAUGE:
                return (self.name,)
            case Kind.HISTOGRAM:
                return tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum"))

    def counter(self, registry: CollectorRegistry) -> Counter:
        return Counter(self.name, self.text, self.labels, registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        return Gauge(self.name, self.text, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry, buckets: Sequence[float]) -> Histogram:
        return Histogram(self.name, self.text, self.labels, buckets=buckets, registry=registry)

    def of(self, values: float | Mapping[Key, float]) -> Metric:
        """The family as a collector yields it: one value, or one for each label's value, or for each tuple of
        them."""
        found: Mapping[Key, float] | Mapping[tuple[()], float]
        found = values if isinstance(values, Mapping) else {(): values}
        kind = CounterMetricFamily if self.kind is Kind.COUNTER else GaugeMetricFamily
        family = kind(self.name, self.text, labels=self.labels)
        for key, value in found.items():
            family.add_metric((key,) if isinstance(key, str) else key, value)
        return family


def counter(name: str, text: str, labels: tuple[str, ...] = (), unit: str | None = None) -> MetricFamily:
    return MetricFamily(Kind.COUNTER, name, text, labels, unit)


def gauge(name: str, text: str, labels: tuple[str, ...] = (), unit: str | None = None) -> MetricFamily:
    return MetricFamily(Kind.GAUGE, name, text, labels, unit)


def histogram(name: str, text: str, labels: tuple[str, ...] = ()) -> MetricFamily:
    return MetricFamily(Kind.HISTOGRAM, name, text, labels)
