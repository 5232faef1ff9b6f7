"""Every family about the exporter itself: its polls, and the state of each source."""

from typing import Final

from exporter.metrics.family import Family
from exporter.metrics.observed import SOURCE

BUILD_INFO = Family(
    "concurrency_exporter_build_info",
    "info",
    "Version and source revision of this exporter, and the version of Python that it runs on.",
    ("version", "revision", "python"),
)
POLL_DURATION = Family(
    "concurrency_exporter_poll_duration_seconds",
    "histogram",
    "Duration of polls of the source, whatever their outcome.",
    SOURCE,
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60),
)
POLLS = Family(
    "concurrency_exporter_polls_total",
    "counter",
    "Polls of the source by outcome; a poll that is due while the previous one is still running is skipped.",
    (*SOURCE, "outcome"),
)
POLL_ERRORS = Family(
    "concurrency_exporter_poll_errors_total",
    "counter",
    "Polls of the source that failed or left something out, by reason; a poll counts once for each reason.",
    (*SOURCE, "reason"),
)
UPSTREAM_REQUESTS = Family(
    "concurrency_exporter_upstream_requests_total",
    "counter",
    "Requests to the upstream server by route and HTTP status code; the code is error if there was no answer.",
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
    "Time of the newest good snapshot of the source: the start of its poll, by the exporter's clock.",
    SOURCE,
)
SOURCE_SHARDS = Family(
    "concurrency_exporter_source_shards",
    "gauge",
    "How many exporters divide the source among them (--shard), 1 if one exporter reads all of it. The label is the"
    " number of this exporter, counting from 0.",
    (*SOURCE, "shard"),
)
QUEUES_UNREADABLE = Family(
    "concurrency_exporter_queues_unreadable",
    "gauge",
    "Queues that are missing from the served snapshot because they could not be read; a pool whose queues could not"
    " be listed counts as one.",
    SOURCE,
)
SERIES_DROPPED = Family(
    "concurrency_exporter_series_dropped",
    "gauge",
    "Series that are missing from the served snapshot because the source has more than its max_series.",
    SOURCE,
)
RATELIMIT_REMAINING = Family(
    "concurrency_exporter_upstream_ratelimit_remaining",
    "gauge",
    "Requests that the upstream server still allows in the current window: X-RateLimit-Remaining of the last poll.",
    SOURCE,
)
RATELIMIT_LIMIT = Family(
    "concurrency_exporter_upstream_ratelimit_limit",
    "gauge",
    "Requests that the upstream server allows in one window: X-RateLimit-Limit of the last poll.",
    SOURCE,
)
UPSTREAM_INFO = Family(
    "concurrency_exporter_upstream_info",
    "info",
    "Version of the upstream server, if it reports one.",
    (*SOURCE, "version"),
)
UPSTREAM_DEPRECATION = Family(
    "concurrency_exporter_upstream_deprecation_timestamp_seconds",
    "gauge",
    "When the upstream server deprecates an endpoint that the source reads: its earliest Deprecation header.",
    SOURCE,
)
UPSTREAM_SUNSET = Family(
    "concurrency_exporter_upstream_sunset_timestamp_seconds",
    "gauge",
    "When the upstream server removes an endpoint that the source reads: its earliest Sunset header.",
    SOURCE,
)

CONFIG_RELOAD_SUCCESSFUL = Family(
    "concurrency_exporter_config_last_reload_successful",
    "gauge",
    "Whether the configuration and --web.config.file were valid when they were last read; if not, the previous"
    " configuration stays in use.",
)
CONFIG_RELOAD_SUCCESS = Family(
    "concurrency_exporter_config_last_reload_success_timestamp_seconds",
    "gauge",
    "When a valid configuration was last read.",
)

OWN: Final = (
    BUILD_INFO,
    CONFIG_RELOAD_SUCCESSFUL,
    CONFIG_RELOAD_SUCCESS,
    POLL_DURATION,
    POLLS,
    POLL_ERRORS,
    UPSTREAM_REQUESTS,
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
