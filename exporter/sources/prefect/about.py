"""The origin of Prefect's values, the states of its runs, and their names."""

from typing import Final

from exporter.sources.about import About, Priorities, Variable

POOL_STATUSES: Final = ("READY", "NOT_READY", "PAUSED")

ABOUT: Final = About(
    title="Prefect",
    figures={
        "concurrency_queue_active_slots": "`active_slots` of the queue's `concurrency_status`: its runs in PENDING,"
        " RUNNING or CANCELLING",
        "concurrency_queue_slot_limit": "`concurrency_limit` of the work queue",
        "concurrency_queue_usage_known": "1 for each work queue that could be read",
        "concurrency_queue_queued_tasks": "Runs in SCHEDULED that are due, or AwaitingConcurrencySlot. `priority` is"
        " that of their work queue; the lowest number goes first",
        "concurrency_queue_waiting_tasks": "`state_name` of these runs. Runs that are scheduled for later are not"
        " counted",
        "concurrency_queue_waiting_duration_max_seconds": "Time since `next_scheduled_start_time` of"
        " the run, or since `expected_start_time` if it is AwaitingConcurrencySlot",
        "concurrency_queue_processing_tasks": "Holders in RUNNING",
        "concurrency_queue_slot_holders": "`state_type` of the `flow_runs` in the queue's `concurrency_status`",
        "concurrency_queue_state_duration_seconds": "`time_in_current_state` of these `flow_runs`",
        "concurrency_queue_state_duration_max_seconds": "The longest `time_in_current_state` of these `flow_runs`",
        "concurrency_queue_paused": "`is_paused` of the work queue",
        "concurrency_queue_last_polled_timestamp_seconds": "`last_polled` of the work queue",
        "concurrency_queue_info": "`id` and `priority` of the work queue; the lowest number goes first",
        "concurrency_pool_active_slots": "`active_slots` of the work pool, which counts runs in PENDING and RUNNING"
        " only. Absent if the pool has no limit",
        "concurrency_pool_slot_limit": "`concurrency_limit` of the work pool",
        "concurrency_pool_paused": "`is_paused` of the work pool",
        "concurrency_pool_status": "`status` of the work pool",
        "concurrency_pool_workers": "`status` of the pool's workers that are ONLINE and sent a heartbeat within the"
        " last day. OFFLINE workers are not counted, because Prefect never deletes them",
        "concurrency_pool_last_heartbeat_timestamp_seconds": "The newest `last_heartbeat_time` of the pool's ONLINE"
        " workers; of the OFFLINE workers if none is ONLINE",
        "concurrency_pool_info": "`id` and `type` of the work pool",
        "concurrency_limit_active_slots": "`active_slots` of the concurrency limit, after its decay. The limit of a"
        " deployment is named by flow and deployment",
        "concurrency_limit_slots": "`limit` of the concurrency limit",
        "concurrency_limit_slot_decay_per_second": "`slot_decay_per_second` of the concurrency limit",
        "concurrency_limit_active": "`active` of the concurrency limit",
        "concurrency_limit_info": "`id` of the concurrency limit",
    },
    holder_states={"PENDING": "near", "RUNNING": "neutral", "CANCELLING": "closed"},
    waiting_states={
        "Scheduled": "neutral",
        "Late": "act",
        "AwaitingConcurrencySlot": "closed",
        "AwaitingRetry": None,
    },
    priorities=Priorities(first=1),
    environment=(
        Variable("PREFECT_API_URL", "url"),
        Variable("PREFECT_API_KEY", "authorization"),
        Variable(
            "PREFECT_API_AUTH_STRING",
            "basic_auth",
            "takes precedence over a key; a value without a colon is sent unchanged",
        ),
        Variable("PREFECT_CLIENT_CUSTOM_HEADERS", "http_headers", 'a JSON object, like `{"X-Name": "value"}`'),
        Variable("PREFECT_API_SSL_CERT_FILE", "tls_config.ca_file"),
        Variable("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "tls_config.insecure_skip_verify"),
    ),
    ignored_environment=frozenset(
        {
            *("PREFECT_API_ENABLE_HTTP2", "PREFECT_API_REQUEST_TIMEOUT", "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED"),
            *("PREFECT_CLIENT_MAX_RETRIES", "PREFECT_CLIENT_RETRY_EXTRA_CODES", "PREFECT_CLIENT_RETRY_JITTER_FACTOR"),
            *("PREFECT_PROFILE", "PREFECT_PROFILES_PATH"),
        }
    ),
)
