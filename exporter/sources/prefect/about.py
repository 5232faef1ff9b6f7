"""The origin of Prefect's values, the states of its runs, and their names."""

from typing import Final

from exporter.sources.about import About, Priorities, Reason, Variable

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
        "concurrency_queue_blocked_tasks": "The queued runs, by the first [reason](prefect.md#why-runs-wait) that"
        " applies",
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
    reasons={
        "retry": Reason(
            "The run's own process will try it again (`retry_type` is `in_process`), so no worker gets it",
            "Nothing, unless it is due for more than a minute: then its process is gone. Set the run to Failed, and"
            " retry it",
        ),
        "pool_paused": Reason("The work pool is paused", "Resume the work pool"),
        "queue_paused": Reason("The work queue is paused", "Resume the work queue"),
        "zero_limit": Reason(
            "The limit of the work queue, of the work pool or of the run's deployment is 0", "Raise or remove the limit"
        ),
        "no_worker": Reason(
            "No worker has polled the work queue for a minute (`last_polled`)",
            "Start a worker that polls this queue. A worker that was started with `-q` polls only the queues it names",
        ),
        "deployment_limit": Reason(
            "The limit of the run's deployment is reached: the run is AwaitingConcurrencySlot",
            "Raise the limit of the deployment, or wait for its runs",
        ),
        "queue_limit": Reason(
            "The work queue has no free slot for the run. Older runs get the free slots",
            "Raise the limit of the work queue, or find out who holds its slots",
        ),
        "pool_limit": Reason(
            "The work pool has no free slot for the run",
            "Raise the limit of the work pool, or find out which of its queues hold the slots",
        ),
        "priority": Reason(
            "The work pool has no free slot for the run, because a queue with a better priority goes first",
            "Raise the limit of the work pool, or change the priorities",
        ),
        "just_now": Reason(
            "A worker should get the run at its next poll: it has been due for less than 30 s, or was blocked at the"
            " last poll of the exporter",
            "Nothing",
        ),
        "none": Reason(
            "Slots are free, a worker polls the queue, and yet the run waits",
            "Look at the workers: one that was started with `--limit` may be full, and its log shows submissions that"
            " fail",
        ),
    },
    priorities=Priorities(first=1),
    environment=(
        Variable("PREFECT_API_URL", "url"),
        Variable("PREFECT_UI_URL", "ui_url"),
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
