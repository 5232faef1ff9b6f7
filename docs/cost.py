"""What a source adds to a Prometheus: series and bytes, counted by rendering what could be found at an upstream."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from exporter.clock import Clock
from exporter.metrics.body import Body
from exporter.metrics.exposition import render
from exporter.metrics.text import Format
from exporter.model import Holders, Limit, Pool, Queue, RateLimit, Snapshot, Waiting, Workers, blocked_by
from exporter.polling.outcome import Published, Succeeded
from exporter.polling.store import Store
from exporter.polling.telemetry import Telemetry
from exporter.sources.cloro import CloroConfig
from exporter.sources.prefect.about import ABOUT as PREFECT
from exporter.sources.prefect.slots import HOLDING_STATES
from exporter.sources.prefect.snapshot import WAITING_STATES

_NONE: Final = dict.fromkeys(HOLDING_STATES, Holders(0))
_THEN: Final = 1_790_000_000.123456
IDLE: Final = Queue(
    pool="kubernetes",
    name="default",
    usage_known=True,
    active_slots=0,
    processing=0,
    holders=_NONE,
    queued={"1": 0},
    waiting=dict.fromkeys(WAITING_STATES, Waiting(0)),
    blocked=blocked_by({}, PREFECT.reasons, 0),
    paused=False,
    last_polled=_THEN,
    id="c4272125-13f6-58d9-8fed-a0ab0a7b848f",
    priority=1,
)
"""A Prefect queue without a limit and without runs, that a worker has asked for work."""
LIMITED: Final = replace(IDLE, slot_limit=16)
BUSY: Final = replace(
    LIMITED, active_slots=8, processing=8, longest_wait=61.5, holders=_NONE | {"RUNNING": Holders(8, (120.5,) * 8)}
)
POOL: Final = Pool(
    name="kubernetes",
    id="c4272125-13f6-58d9-8fed-a0ab0a7b848f",
    kind="kubernetes",
    paused=False,
    active_slots=8,
    slot_limit=64,
    statuses={"READY": True, "NOT_READY": False, "PAUSED": False},
    workers=Workers({"ONLINE": 1}, _THEN),
)
LIMIT: Final = Limit("database", "tag", POOL.id, active_slots=3, slot_limit=8, slot_decay=0.0, active=True)
CLORO: Final = Queue(
    pool="",
    name="async",
    usage_known=True,
    active_slots=5,
    slot_limit=20,
    processing=5,
    queued={str(level): 0 for level in range(1, 11)},
    blocked=blocked_by({}, CloroConfig.about.reasons, 0),
)


def series(*queues: Queue, pools: Iterable[Pool] = (), limits: Iterable[Limit] = ()) -> int:
    """How many series these make."""
    snapshot = Snapshot(queues=queues, pools=tuple(pools), limits=tuple(limits))
    return render(snapshot, source="production", system="prefect", max_series=10**9).series


def things() -> list[tuple[str, str, int]]:
    """What there can be at upstreams, a letter for how many of it there are, and how many series each makes."""
    holding = series(BUSY) - series(replace(BUSY, holders=_NONE))
    source = of_a_source(Snapshot())
    rate_limit = of_a_source(Snapshot(rate_limit=RateLimit(100, 50))) - source
    return [
        ("queues of Prefect", "Q", series(IDLE)),
        ("those that have a limit", "L", series(LIMITED) - series(IDLE)),
        ("those in which tasks wait", "W", series(replace(IDLE, longest_wait=1.0)) - series(IDLE)),
        ("states that holders are in, 0 to 3 for each queue", "H", holding),
        ("pools, with a limit and workers", "P", series(pools=[POOL])),
        ("other limits of Prefect", "G", series(limits=[LIMIT])),
        ("organizations of cloro, with their rate limits", "C", series(CLORO) + rate_limit),
        ("sources, whatever is in them", "S", source),
        ("those that tell their version: servers of Prefect", "V", of_a_source(Snapshot(version="3.9.1")) - source),
    ]


def of_a_source(snapshot: Snapshot) -> int:
    """The series that tell of the exporter's work on one source that has this, without those of its requests."""
    clock = Clock()
    store = Store(clock)
    telemetry = Telemetry(clock)
    store.add("production", "prefect")
    telemetry.add("production", "prefect")
    rendered = render(snapshot, source="production", system="prefect", max_series=1)
    store.poll_ended("production", Succeeded(Published(snapshot, rendered, clock.now(), clock.monotonic() + 60), 1.0))
    return sum(b'source="production"' in line for line in telemetry.render(store.view(), Format.CLASSIC).splitlines())


def fleet(queues: int) -> tuple[int, int]:
    """Series and bytes of Prefect with ten queues in a pool, all limited, half of them busy and the others idle."""
    found = tuple(
        replace(BUSY if number % 2 else LIMITED, pool=f"pool-{number // 10}", name=f"queue-{number}")
        for number in range(queues)
    )
    pools = tuple(replace(POOL, name=f"pool-{number}") for number in range(queues // 10))
    rendered = render(Snapshot(found, pools), source="production", system="prefect", max_series=10**9)
    return rendered.series, sum(map(len, Body([rendered], Format.CLASSIC).plain(b"")))
