"""prometheus_client's opinion of how a family and its samples are written: what ours has to be, byte for byte."""

from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from exporter.metrics.family import Distribution, Family, Sample
from exporter.metrics.text import Format, of_collector


def metric(family: Family, samples: Iterable[Sample]) -> Metric:
    """The family as the library has it."""
    name, meaning, labels, unit = family.basename, family.help, family.labels, family.unit
    match family.kind:
        case "gauge":
            gauge = GaugeMetricFamily(name, meaning, labels=labels, unit=unit)
            for sample in samples:
                gauge.add_metric(sample.labels, _number(sample))
            return gauge
        case "counter":
            counter = CounterMetricFamily(name, meaning, labels=labels, unit=unit)
            for sample in samples:
                counter.add_metric(sample.labels, _number(sample))
            return counter
        case "info":
            info = InfoMetricFamily(name, meaning, labels=labels)
            for sample in samples:
                info.add_metric(sample.labels, {})
            return info
        case "gaugehistogram":
            current = GaugeHistogramMetricFamily(name, meaning, labels=labels, unit=unit)
            for sample in samples:
                buckets, total = _distribution(sample)
                current.add_metric(sample.labels, buckets, total)
                _add_exemplar(current, sample)
            return current
        case "histogram":
            histogram = HistogramMetricFamily(name, meaning, labels=labels, unit=unit)
            for sample in samples:
                buckets, total = _distribution(sample)
                histogram.add_metric(sample.labels, buckets, total)
                _add_exemplar(histogram, sample)
            return histogram


def _add_exemplar(metric: Metric, sample: Sample) -> None:
    """Give the exemplar to the first bucket of the sample added last whose bound its value does not pass."""
    assert isinstance(sample.value, Distribution)
    if exemplar := sample.value.exemplar:
        added = len(sample.family.buckets) + 3
        place = next(
            place
            for place, line in enumerate(metric.samples)
            if place >= len(metric.samples) - added
            and line.name.endswith("_bucket")
            and exemplar.value <= float(line.labels["le"])
        )
        metric.samples[place] = metric.samples[place]._replace(exemplar=Exemplar(dict(exemplar.labels), exemplar.value))


def _number(sample: Sample) -> float:
    assert not isinstance(sample.value, Distribution)
    return sample.value


def _distribution(sample: Sample) -> tuple[list[tuple[str, float]], float]:
    assert isinstance(sample.value, Distribution)
    bounds = [*(floatToGoString(bound) for bound in sample.family.buckets), "+Inf"]  # type: ignore[no-untyped-call]
    return list(zip(bounds, accumulate(sample.value.counts), strict=True)), sample.value.sum


def text(metrics: Iterable[Metric], format_: Format) -> bytes:
    """These families as the library writes them, without the end of the format."""
    registry = CollectorRegistry()
    for one in metrics:
        registry.register(_Fixed(one))
    return of_collector(registry, format_)


class _Fixed(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        yield self._metric
