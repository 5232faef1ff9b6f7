"""Exporter: shows whether the other graphs can be trusted.

It has no variables for pools and queues: polls and processes belong to sources, not to pools.
"""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import (
    ACT,
    BAD,
    CLOSED,
    GOOD,
    NEAR,
    NEUTRAL,
    Column,
    Query,
    board,
    figure,
    lines,
    row,
    rows,
    timeline,
)
from dashboards.queries import SCRAPED

PROCESS = 'job=~"$job", instance=~"$instance"'
BY = "source, system"
OUTCOMES = {"success": GOOD, "partial": NEAR, "failure": BAD, "skipped": CLOSED}
AGE = f"time() - max by ({BY}) (concurrency_exporter_last_success_timestamp_seconds{{{SCRAPED}}})"


def _a_minute(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{SCRAPED}}}[$__rate_interval])) * 60"


def build() -> Dashboard:
    """The dashboard."""
    up = f"concurrency_exporter_source_up{{{SCRAPED}}}"
    ours = "and on (job, instance) concurrency_exporter_build_info"
    unreadable = f"concurrency_exporter_queues_unreadable{{{SCRAPED}}}"
    dropped = f"concurrency_exporter_series_dropped{{{SCRAPED}}}"
    return (
        board("exporter", since="3h", variables=("job", "instance", "system", "source"))
        .with_panel(
            figure(
                "Sources up",
                "What share of the sources can be polled?",
                f"avg(max by ({BY}) ({up}))",
                unit="percentunit",
                steps=((BAD, None), (GOOD, 1)),
                empty="No exporter",
            )
        )
        .with_panel(
            figure(
                "Oldest data",
                "How old is the oldest snapshot?",
                f"max({AGE})",
                unit="s",
                steps=((GOOD, None), (ACT, 120), (BAD, 600)),
                empty="No data yet",
            )
        )
        .with_panel(
            figure(
                "Queues unreadable",
                "How many queues are missing because they could not be read?",
                f"sum(max by ({BY}) ({unreadable}))",
                steps=((GOOD, None), (ACT, 1)),
                empty="No data yet",
            )
        )
        .with_panel(
            figure(
                "Series dropped",
                "How many series are missing because a source exceeds max_series?",
                f"sum(max by ({BY}) ({dropped}))",
                steps=((GOOD, None), (ACT, 1)),
                empty="No data yet",
            )
        )
        .with_panel(
            figure(
                "Configuration",
                "Could the exporter load the configuration file as it is now?",
                f"min(concurrency_exporter_config_last_reload_successful{{{PROCESS}}})",
                mappings={"1": ("in use", GOOD), "0": ("has errors", BAD)},
                empty="No exporter",
            )
        )
        .with_panel(
            figure(
                "Versions",
                "How many versions of the exporter run at the same time?",
                f"count(count by (version) (concurrency_exporter_build_info{{{PROCESS}}}))",
                steps=((NEUTRAL, None), (ACT, 2)),
                empty="No exporter",
            )
        )
        .with_panel(
            timeline(
                "Sources over time",
                "When could a source not be polled?",
                Query(f"max by ({BY}) ({up})", "{{source}} ({{system}})"),
                states={"1": ("up", GOOD), "0": ("down", BAD)},
                empty="No exporter",
                height=6,
            )
        )
        .with_panel(
            lines(
                "Polls by outcome",
                "How do polls end, per minute?",
                Query(_a_minute("concurrency_exporter_polls_total", "outcome"), "{{outcome}}"),
                unit="opm",
                stacked=True,
                colors=OUTCOMES,
            )
        )
        .with_panel(
            lines(
                "Failures by reason",
                "Why do polls fail, or read only a part, per minute?",
                Query(
                    f"{_a_minute('concurrency_exporter_poll_errors_total', 'source, reason')} > 0",
                    "{{source}}: {{reason}}",
                ),
                unit="opm",
                empty="Nothing failed",
            )
        )
        .with_panel(
            lines(
                "Age of the data",
                "How old is the data of each source?",
                Query(AGE, "{{source}}"),
                unit="s",
                steps=(("transparent", None), (BAD, 600)),
            )
        )
        .with_panel(
            lines(
                "Duration of polls",
                "Do polls end well within their interval? The p95 of their duration",
                Query(
                    "histogram_quantile(0.95, sum by (le, source)"
                    f" (rate(concurrency_exporter_poll_duration_seconds_bucket{{{SCRAPED}}}[$__rate_interval])))",
                    "{{source}}",
                ),
                unit="s",
            )
        )
        .with_row(row("Upstream"))
        .with_panel(
            lines(
                "Requests to upstream",
                "How many requests does the exporter send, per minute?",
                Query(_a_minute("concurrency_exporter_upstream_requests_total", "source, code"), "{{source}} {{code}}"),
                unit="reqpm",
                legend_width=380,
            )
        )
        .with_panel(
            lines(
                "Rate limit left",
                "What share of the upstream server's rate limit is left?",
                Query(
                    f"min by ({BY}) (concurrency_exporter_upstream_ratelimit_remaining{{{SCRAPED}}}"
                    f" / (concurrency_exporter_upstream_ratelimit_limit{{{SCRAPED}}} > 0))",
                    "{{source}}",
                ),
                unit="percentunit",
                maximum=1,
                steps=((BAD, None), ("transparent", 0.1)),
                empty="No source reports one",
            )
        )
        .with_panel(
            rows(
                "Requests by route",
                "Which route gets the most requests?",
                Column("Source", label="source", width=130),
                Column("Route", label="endpoint"),
                Column(
                    "Requests",
                    "sum by (source, endpoint)"
                    f" (increase(concurrency_exporter_upstream_requests_total{{{SCRAPED}}}[$__range]))",
                    decimals=0,
                    width=100,
                ),
                sort_by="Requests",
                most=30,
                empty="No requests",
                span=12,
                height=8,
            )
        )
        .with_panel(
            rows(
                "Series by source",
                "Which source adds the most series to Prometheus, and are any dropped?",
                Column("Source", label="source"),
                Column("System", label="system"),
                Column(
                    "Series",
                    f'count by ({BY}) ({{__name__=~"concurrency_(queue|pool|limit)_.+", {SCRAPED}}})',
                ),
                Column("Dropped", f"max by ({BY}) ({dropped})", steps=((GOOD, None), (ACT, 1)), decimals=0),
                sort_by="Series",
                most=30,
                empty="No data yet",
                span=12,
                height=8,
            )
        )
        .with_row(row("Process"))
        .with_panel(
            lines(
                "Memory",
                "Does the exporter leak memory?",
                Query(
                    f"max by (job, instance) (process_resident_memory_bytes{{{PROCESS}}} {ours})",
                    "{{instance}}",
                ),
                unit="bytes",
            )
        )
        .with_panel(
            lines(
                "CPU",
                "How much of one core does the exporter use?",
                Query(
                    f"max by (job, instance) (rate(process_cpu_seconds_total{{{PROCESS}}}[$__rate_interval]) {ours})",
                    "{{instance}}",
                ),
                unit="percentunit",
                legend_width=360,
            )
        )
        .with_panel(
            lines(
                "Scrape duration",
                "How long does a scrape take?",
                Query(
                    f"max by (job, instance) (scrape_duration_seconds{{{PROCESS}}} {ours})",
                    "{{instance}}",
                ),
                unit="s",
            )
        )
        .with_panel(
            lines(
                "Samples of a scrape",
                "How many samples does a scrape add to Prometheus?",
                Query(
                    f"max by (job, instance) (scrape_samples_scraped{{{PROCESS}}} {ours})",
                    "{{instance}}",
                ),
                unit="short",
            )
        )
    )
