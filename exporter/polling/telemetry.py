"""Counts what the exporter does, and makes samples of that and of what the store holds."""

import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from exporter import __version__
from exporter.clock import Clock
from exporter.metrics import own
from exporter.metrics.family import Distribution, Family, Sample
from exporter.metrics.text import Format, blocks, joined, of_collector
from exporter.model import FAILURE_REASONS, OUTCOMES, FailureReason, Outcome, first_of
from exporter.polling.store import SourceState, View


class Telemetry:
    """Counts what the poller does, and renders that together with what a view of the store holds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, _Counts] = {}
        self._config_good = self._web_config_good = True
        self._config_successful = False
        self._config_success = 0.0
        self._build = own.BUILD_INFO.sample(1, __version__, _revision(), platform.python_version())
        self._rendered: dict[tuple[Format, str | None], tuple[list[Sample], bytes]] = {}
        """By format and source, the samples of the last scrape and their text: between two polls they stay the same."""
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)

    def config_read(self, *, success: bool) -> None:
        """The configuration was read, and is in use if that was a success."""
        self._config_good = success
        self._reloaded()

    def web_config_read(self, *, success: bool) -> None:
        """The same of the web configuration."""
        self._web_config_good = success
        self._reloaded()

    def _reloaded(self) -> None:
        self._config_successful = self._config_good and self._web_config_good
        if self._config_successful:
            self._config_success = self._clock.now()

    def add(self, source: str, system: str) -> None:
        """Show every counter of a source from the start, at 0: the first increase is then seen as one."""
        self._counts[source] = _Counts(source, system)

    def remove(self, source: str) -> None:
        """Forget the counters of a source that is no longer configured."""
        del self._counts[source]
        self._rendered.clear()

    def poll_ended(self, source: str, outcome: Outcome, seconds: float, reasons: set[FailureReason]) -> None:
        """A poll of `seconds` has ended, for the `reasons` given if not in full success."""
        counts = self._counts[source]
        counts.polls[outcome] += 1
        counts.durations[own.POLL_DURATION.bucket(seconds)] += 1
        counts.seconds += seconds
        for reason in reasons:
            counts.errors[reason] += 1

    def poll_skipped(self, source: str) -> None:
        """A poll was due while the one before it was still running."""
        self._counts[source].polls["skipped"] += 1

    def request_sent(self, source: str, endpoint: str, code: str) -> None:
        """A request was sent to the route `endpoint` and answered with `code`."""
        self._counts[source].requests[endpoint, code] += 1

    def requests(self, source: str) -> int:
        """Return the number of requests for a source since the start; 0 for an unknown source."""
        counts = self._counts.get(source)
        return counts.requests.total() if counts else 0

    def render(self, view: View, format_: Format, source: str | None = None) -> bytes:
        """Return all of these metrics as the text that ends a scrape's answer; or those with this label `source`.

        An empty one selects, as in PromQL, those without the label: of the process, and of the exporter as a whole.
        """
        samples = list(self._samples(view, source))
        before, text = self._rendered.get((format_, source), (None, b""))
        if samples != before:
            # The whole has the headers of every family, whether or not there is something of it yet.
            text = _text(samples, format_, own.OWN if source is None else ())
            self._rendered[format_, source] = samples, text
        process = b"" if source else of_collector(self._process, format_)
        return text + process + format_.value

    def _samples(self, view: View, source: str | None) -> Iterator[Sample]:
        if not source:
            yield self._build
            yield own.CONFIG_RELOAD_SUCCESSFUL.sample(self._config_successful)
            yield own.CONFIG_RELOAD_SUCCESS.sample(self._config_success)
        for name, counts in self._counts.items():
            if source in {None, name}:
                yield from counts.samples()
        for state in view.states:
            if source in {None, state.name}:
                yield from _state_samples(state)


class _Counts:
    """The counters of one source."""

    def __init__(self, source: str, system: str) -> None:
        self._labels = (source, system)
        self.polls: Counter[Outcome] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.errors: Counter[FailureReason] = Counter(dict.fromkeys(FAILURE_REASONS, 0))
        self.requests: Counter[tuple[str, str]] = Counter()
        """By route and status code."""
        self.durations = [0] * (len(own.POLL_DURATION.buckets) + 1)
        """Polls by duration, for each bucket."""
        self.seconds = 0.0
        """Seconds that all polls took together."""

    def samples(self) -> Iterator[Sample]:
        labels = self._labels
        for outcome, polls in self.polls.items():
            yield own.POLLS.sample(polls, *labels, outcome)
        for reason, errors in self.errors.items():
            yield own.POLL_ERRORS.sample(errors, *labels, reason)
        for (endpoint, code), requests in self.requests.items():
            yield own.UPSTREAM_REQUESTS.sample(requests, *labels, endpoint, code)
        yield own.POLL_DURATION.sample(Distribution(tuple(self.durations), self.seconds), *labels)


def _text(samples: Iterable[Sample], format_: Format, families: Iterable[Family]) -> bytes:
    """The text of these samples, with the headers of these families."""
    by_family: dict[Family, list[Sample]] = {family: [] for family in families}
    for sample in samples:
        by_family.setdefault(sample.family, []).append(sample)
    return joined(block for family, of_family in by_family.items() for block in blocks(family, of_family)[format_])


def _revision() -> str:
    """The commit that pip installed from, where it did; a wheel does not tell."""
    origin = json.loads(distribution("concurrency-exporter").read_text("direct_url.json") or "{}")
    return str(origin.get("vcs_info", {}).get("commit_id", "unknown"))


def _state_samples(state: SourceState) -> Iterator[Sample]:
    labels = (state.name, state.system)
    yield own.SOURCE_UP.sample(state.up, *labels)
    yield own.SOURCE_SHARDS.sample(state.shard.total, *labels, str(state.shard.index))
    if state.last_success is not None:
        yield own.LAST_SUCCESS.sample(state.last_success, *labels)
    if state.published:
        unreadable = sum(one.part == "queues" for one in state.published.snapshot.unreadable)
        yield own.QUEUES_UNREADABLE.sample(unreadable, *labels)
        yield own.SERIES_DROPPED.sample(state.published.rendered.series_dropped, *labels)
        if version := state.published.snapshot.version:
            yield own.UPSTREAM_INFO.sample(1, *labels, version)
    if state.rate_limit and state.rate_limit.remaining is not None:
        yield own.RATELIMIT_REMAINING.sample(state.rate_limit.remaining, *labels)
    if state.rate_limit and state.rate_limit.limit is not None:
        yield own.RATELIMIT_LIMIT.sample(state.rate_limit.limit, *labels)
    retirement = first_of(state.retirements.values())
    if retirement.deprecation:
        yield own.UPSTREAM_DEPRECATION.sample(retirement.deprecation.timestamp(), *labels)
    if retirement.sunset:
        yield own.UPSTREAM_SUNSET.sample(retirement.sunset.timestamp(), *labels)
