"""Every family in which the exporter tells of itself: what its polls did, and what is known of each source."""

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
