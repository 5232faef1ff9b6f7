"""The exporter's metrics about itself: what its polls did, and what is known of each source."""

import json
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
)

from exporter import __version__
from exporter.clock import Clock
from exporter.metrics.exposition import Format
from exporter.metrics.family import Family, Sample
from exporter.metrics.observed import SOURCE
from exporter.model import FAILURE_REASONS, OUTCOMES, FailureReason, Outcome, first_of
from exporter.polling.store import SourceState, Store

BUILD_INFO = Family(
    "concurrency_exporter_build_info",
    "info",
    "Version and source revision of this exporter, and the version of Python that it runs on.",
    ("version", "revision", "python"),
)
POLL_DURATION = Family(
    "concurrency_exporter_poll_duration_seconds",
    "histogram",
    "How long polls of the source took, whatever their outcome.",
    SOURCE,
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60),
)
POLLS = Family(
    "concurrency_exporter_polls_total",
    "counter",
    "Polls of the source by outcome; one that falls into the poll before it is skipped.",
    (*SOURCE, "outcome"),
)
POLL_ERRORS = Family(
    "concurrency_exporter_poll_errors_total",
    "counter",
    "Polls of the source that failed, or left something out, by reason; one poll counts once for each reason.",
    (*SOURCE, "reason"),
)
UPSTREAM_REQUESTS = Family(
    "concurrency_exporter_upstream_requests_total",
    "counter",
    "Requests to the upstream by route and HTTP status; the code is error where no answer came.",
    (*SOURCE, "endpoint", "code"),
)
SOURCE_UP = Family(
    "concurrency_exporter_source_up",
    "gauge",
    "Whether the last poll of the source succeeded, at least in part; 0 before the first.",
    SOURCE,
)
LAST_SUCCESS = Family(
    "concurrency_exporter_last_success_timestamp_seconds",
    "gauge",
    "When the newest good snapshot of the source was taken, by the exporter's clock at the start of its poll.",
    SOURCE,
)
SOURCE_SHARDS = Family(
    "concurrency_exporter_source_shards",
    "gauge",
    "How many exporters share the source by --shard, 1 where one reads all of it; the label is which of them this one"
    " is, counted from 0.",
    (*SOURCE, "shard"),
)
QUEUES_UNREADABLE = Family(
    "concurrency_exporter_queues_unreadable",
    "gauge",
    "Queues that the served snapshot leaves out since they could not be read; a pool whose queues could not be"
    " listed counts as one.",
    SOURCE,
)
SERIES_DROPPED = Family(
    "concurrency_exporter_series_dropped",
    "gauge",
    "Series that the served snapshot has above max_series of the source, and that are therefore missing.",
    SOURCE,
)
RATELIMIT_REMAINING = Family(
    "concurrency_exporter_upstream_ratelimit_remaining",
    "gauge",
    "Requests that upstream would still answer in its present window; X-RateLimit-Remaining of the last poll.",
    SOURCE,
)
RATELIMIT_LIMIT = Family(
    "concurrency_exporter_upstream_ratelimit_limit",
    "gauge",
    "Requests that upstream answers in one window; X-RateLimit-Limit of the last poll.",
    SOURCE,
)

UPSTREAM_INFO = Family(
    "concurrency_exporter_upstream_info",
    "info",
    "Version of the upstream's server, where it says so.",
    (*SOURCE, "version"),
)
UPSTREAM_DEPRECATION = Family(
    "concurrency_exporter_upstream_deprecation_timestamp_seconds",
    "gauge",
    "When upstream deprecates an endpoint that the source reads; the earliest Deprecation header of its answers.",
    SOURCE,
)
UPSTREAM_SUNSET = Family(
    "concurrency_exporter_upstream_sunset_timestamp_seconds",
    "gauge",
    "When upstream removes an endpoint that the source reads; the earliest Sunset header of its answers.",
    SOURCE,
)

CONFIG_RELOAD_SUCCESSFUL = Family(
    "concurrency_exporter_config_last_reload_successful",
    "gauge",
    "Whether the configuration, and that of --web.config.file, could be used when it was last read; if not, the one"
    " before it stays in use.",
)
CONFIG_RELOAD_SUCCESS = Family(
    "concurrency_exporter_config_last_reload_success_timestamp_seconds",
    "gauge",
    "When the configuration was last read and could be used.",
)

FROM_STORE: Final = (
    SOURCE_UP,
    SOURCE_SHARDS,
    LAST_SUCCESS,
    QUEUES_UNREADABLE,
    SERIES_DROPPED,
    RATELIMIT_REMAINING,
    RATELIMIT_LIMIT,
    UPSTREAM_INFO,
    UPSTREAM_DEPRECATION,
    UPSTREAM_SUNSET,
)
OWN: Final = (
    BUILD_INFO,
    CONFIG_RELOAD_SUCCESSFUL,
    CONFIG_RELOAD_SUCCESS,
    POLL_DURATION,
    POLLS,
    POLL_ERRORS,
    UPSTREAM_REQUESTS,
    *FROM_STORE,
)


class Telemetry:
    """Counts what the poller does, and renders it together with what the store holds."""

    def __init__(self, store: Store, clock: Clock) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series of every counter
        self._clock = clock
        self._store = store
        self._rendered: dict[tuple[Format, str | None], tuple[list[object], bytes]] = {}
        self._counts: dict[str, _Counts] = {}
        self._no_counts = _Counts()
        self._exporter = CollectorRegistry()
        self._config_good = self._web_config_good = True
        self._config_readings = 0
        self._config_successful = self._gauge(CONFIG_RELOAD_SUCCESSFUL)
        self._config_success = self._gauge(CONFIG_RELOAD_SUCCESS)
        self._build = BUILD_INFO.sample(1, __version__, _revision(), platform.python_version())
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)

    def _gauge(self, family: Family) -> Gauge:
        return Gauge(family.basename, family.help, family.labels, unit=family.unit, registry=self._exporter)

    def config_read(self, *, success: bool) -> None:
        """The configuration was read, and is in use if that was a success."""
        self._config_good = success
        self._reloaded()

    def web_config_read(self, *, success: bool) -> None:
        """The same of the web configuration."""
        self._web_config_good = success
        self._reloaded()

    def _reloaded(self) -> None:
        self._config_readings += 1
        good = self._config_good and self._web_config_good
        self._config_successful.set(good)
        if good:
            self._config_success.set(self._clock.now())

    def add(self, source: str, system: str) -> None:
        """Show every counter of a source from the start, at 0: the first increase is then seen as one."""
        counts = self._counts[source] = _Counts()
        for outcome in OUTCOMES:
            counts.polls.labels(source, system, outcome)
        for reason in FAILURE_REASONS:
            counts.errors.labels(source, system, reason)
        counts.duration.labels(source, system)

    def remove(self, source: str) -> None:
        """Forget the counters of a source that is no longer configured."""
        del self._counts[source]
        self._rendered = {key: text for key, text in self._rendered.items() if key[1] != source}

    def poll_ended(
        self, source: str, system: str, outcome: Outcome, seconds: float, reasons: set[FailureReason]
    ) -> None:
        """A poll of `seconds` has ended, for the `reasons` given if not in full success."""
        counts = self._changed(source)
        counts.polls.labels(source, system, outcome).inc()
        counts.duration.labels(source, system).observe(seconds)
        for reason in reasons:
            counts.errors.labels(source, system, reason).inc()

    def poll_skipped(self, source: str, system: str) -> None:
        """A poll was due while the one before it was still running."""
        self._changed(source).polls.labels(source, system, "skipped").inc()

    def request_sent(self, source: str, system: str, endpoint: str, code: str) -> None:
        """A request was sent to the route `endpoint` and answered with `code`."""
        self._changed(source).requests.labels(source, system, endpoint, code).inc()

    def _changed(self, source: str) -> "_Counts":
        counts = self._counts[source]
        counts.changes += 1
        return counts

    def requests(self, source: str) -> int:
        """How many requests were sent for a source since the start; none for one that is not here."""
        counts = self._counts.get(source, self._no_counts)
        return sum(int(sample.value) for metric in counts.requests.collect() for sample in metric.samples)

    def render(self, format_: Format, source: str | None = None) -> bytes:
        """All of these metrics, now, as text that ends a scrape's answer; or those with this label `source`.

        An empty one selects, as in PromQL, those without the label: of the process, and of the exporter as a whole.
        Between two polls only those of the process change, so the text of the others is kept; that of one source until
        its own next poll.
        """
        counts = [one for name, one in self._counts.items() if source in {None, name}]
        states = [state for state in self._store.states() if source in {None, state.name}]
        now: list[object] = [*states, *(one.changes for one in counts), None if source else self._config_readings]
        key = (format_, source)
        if key not in self._rendered or self._rendered[key][0] != now:
            metrics = self._metrics(counts, states, of_exporter=not source)
            # The whole has the headers of every family, whether or not there is something of it yet.
            text = format_.encode(metric for metric in metrics if metric.samples or source is None)
            self._rendered[key] = (now, text)
        process = b"" if source else format_.encode(self._process.collect())
        return self._rendered[key][1] + process + format_.value

    def _metrics(
        self, counts: Sequence["_Counts"], states: Sequence[SourceState], *, of_exporter: bool
    ) -> Iterator[Metric]:
        for metric, *more in zip(*(one.registry.collect() for one in (self._no_counts, *counts)), strict=True):
            metric.samples = [sample for of_source in more for sample in of_source.samples]
            yield metric
        if of_exporter:
            yield from self._exporter.collect()
            yield BUILD_INFO.metric([self._build])
        samples = [sample for state in states for sample in _state_samples(state)]
        for family in FROM_STORE:
            yield family.metric(sample for sample in samples if sample.family is family)


class _Counts:
    """What is counted of one source, apart from the others: what it costs to show does not grow with their number."""

    def __init__(self) -> None:
        self.changes = 0
        self.registry = CollectorRegistry()
        self.polls = self._counter(POLLS)
        self.errors = self._counter(POLL_ERRORS)
        self.requests = self._counter(UPSTREAM_REQUESTS)
        self.duration = Histogram(
            POLL_DURATION.basename,
            POLL_DURATION.help,
            POLL_DURATION.labels,
            unit=POLL_DURATION.unit,
            buckets=POLL_DURATION.buckets,
            registry=self.registry,
        )

    def _counter(self, family: Family) -> Counter:
        return Counter(family.basename, family.help, family.labels, unit=family.unit, registry=self.registry)


def _revision() -> str:
    """The commit that pip installed from, where it did; a wheel does not tell."""
    origin = json.loads(distribution("concurrency-exporter").read_text("direct_url.json") or "{}")
    return str(origin.get("vcs_info", {}).get("commit_id", "unknown"))


def _state_samples(state: SourceState) -> Iterator[Sample]:
    labels = (state.name, state.system)
    yield SOURCE_UP.sample(state.up, *labels)
    yield SOURCE_SHARDS.sample(state.shard.total, *labels, str(state.shard.index))
    if state.last_success is not None:
        yield LAST_SUCCESS.sample(state.last_success, *labels)
    if state.published:
        unreadable = sum(one.part == "queues" for one in state.published.snapshot.unreadable)
        yield QUEUES_UNREADABLE.sample(unreadable, *labels)
        yield SERIES_DROPPED.sample(state.published.rendered.series_dropped, *labels)
        if version := state.published.snapshot.version:
            yield UPSTREAM_INFO.sample(1, *labels, version)
    if state.rate_limit and state.rate_limit.remaining is not None:
        yield RATELIMIT_REMAINING.sample(state.rate_limit.remaining, *labels)
    if state.rate_limit and state.rate_limit.limit is not None:
        yield RATELIMIT_LIMIT.sample(state.rate_limit.limit, *labels)
    retirement = first_of(state.retirements.values())
    if retirement.deprecation:
        yield UPSTREAM_DEPRECATION.sample(retirement.deprecation.timestamp(), *labels)
    if retirement.sunset:
        yield UPSTREAM_SUNSET.sample(retirement.sunset.timestamp(), *labels)
