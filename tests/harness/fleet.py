"""Worlds that a demo of minutes can't show: a week in which queues grow and fill, and three hundred queues."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import cos, pi
from random import Random
from typing import Final

from exporter.model import Holders, Limit, Pool, Queue, RateLimit, Snapshot, Waiting, Workers, blocked_by
from exporter.sources.cloro import CloroConfig
from exporter.sources.prefect.about import ABOUT
from tests.harness.history import Sources

DAY: Final = 86400.0
PREFECT: Final = ("prefect-prod", "prefect")
CLORO: Final = ("cloro-prod", "cloro")
READY: Final = {"READY": True, "NOT_READY": False, "PAUSED": False}


@dataclass(frozen=True)
class Load:
    """How much work a queue has: slots that would be taken had it no limit, in the quiet and in the busy hours.

    `growth` is slots per day. Of what is above the limit, so many tasks wait for each slot that is missing.
    """

    pool: str
    name: str
    limit: int | None
    quiet: float
    busy: float
    growth: float = 0.0
    waiting: float = 4.0
    unserved: int = 0
    """Tasks that wait in the quiet hours though slots are free: nobody starts them."""
    unlisted: int = 0
    """Of the tasks that are `unserved`, how many are counted, but not listed, so that their reason is unknown."""
    held_by_deployment: int = 0
    """Of the tasks above the limit, how many wait for the limit of their deployment, but a third at most."""
    paused: bool = False
    priority: int = 1

    def demand(self, ago: float) -> float:
        """`ago` is in seconds; now is the middle of the busy hours."""
        wave: float = max(0.0, cos(2 * pi * ago / DAY)) ** 0.7
        noise = Random(f"{self.pool}/{self.name}/{ago // 3600:.0f}").uniform(-0.4, 0.4)  # noqa: S311 - it has to repeat
        return max(0.0, self.quiet + (self.busy - self.quiet) * wave - self.growth * ago / DAY + noise)

    def is_quiet(self, ago: float) -> bool:
        """Whether these are the hours in which nobody starts what is `unserved`."""
        return cos(2 * pi * ago / DAY) < -0.5

    def _blocked(self, over: int, waiting: int) -> dict[str, int]:
        """Why they wait; `over` is those above the limit."""
        if self.paused:
            return {"queue_paused": waiting}
        held = min(over // 3, self.held_by_deployment)
        return {"queue_limit": over - held, "deployment_limit": held, "none": max(0, waiting - over - self.unlisted)}

    def queue(self, ago: float, moment: float) -> Queue:
        """As it was so long ago."""
        demand = self.demand(ago)
        taken = 0 if self.paused else round(demand if self.limit is None else min(demand, self.limit))
        over = 0.0 if self.limit is None else max(0.0, demand - self.limit) * self.waiting
        waiting = round(demand * 4) if self.paused else round(over) + (self.unserved if self.is_quiet(ago) else 0)
        cancelling = 1 if taken >= 8 else 0
        pending = taken // 4 - cancelling
        running = tuple(30.0 * 2.2**number for number in range(taken - taken // 4))
        return Queue(
            self.pool,
            self.name,
            usage_known=True,
            active_slots=taken,
            slot_limit=self.limit,
            processing=len(running),
            holders={
                "PENDING": Holders(pending, (8.0,) * pending),
                "RUNNING": Holders(len(running), running),
                "CANCELLING": Holders(cancelling, (240.0,) * cancelling),
            },
            queued={str(self.priority): waiting},
            blocked=blocked_by(self._blocked(round(over), waiting), ABOUT.reasons, waiting),
            waiting={
                "Scheduled": Waiting(waiting - waiting // 2),
                "Late": Waiting(waiting // 2),
                "AwaitingConcurrencySlot": Waiting(0),
            },
            longest_wait=60.0 + 12 * waiting if waiting else None,
            paused=self.paused,
            last_polled=moment - 10,
            id=f"id-{self.pool}-{self.name}",
            priority=self.priority,
        )


WEEK: Final = (
    Load("kubernetes-prod", "critical", 4, 0.6, 2.2),
    Load("kubernetes-prod", "default", 6, 1.5, 7.5, priority=2),
    Load("kubernetes-prod", "etl", 16, 3.0, 13.0, growth=0.8, priority=3),
    Load("ecs-ml", "training", 3, 3.6, 5.0, waiting=3, held_by_deployment=2),
    Load("ecs-ml", "inference", 6, 1.0, 3.5, unserved=12, unlisted=4, priority=2),
    Load("docker-internal", "default", None, 1.0, 5.0),
    Load("docker-internal", "legacy-imports", 2, 1.0, 3.0, paused=True, priority=2),
    Load("warehouse", "dbt", 4, 0.5, 4.4),
)
POOL_LIMITS: Final = {"kubernetes-prod": 30, "ecs-ml": 10, "warehouse": 8}


def week(ago: float, moment: float) -> Sources:
    """A queue that reaches its limit in some days, some that are full each day, one always, one without workers."""
    queues = tuple(load.queue(ago, moment) for load in WEEK)
    limits = (
        Limit("database", "tag", "id-1", queues[3].active_slots or 0, 3, 0.0, active=True),
        Limit("reports", "tag", "id-3", min(2, queues[3].active_slots or 0), 2, 0.0, active=True),
        Limit("warehouse-writes", "global", "id-2", queues[7].active_slots or 0, 6, 0.0, active=True),
    )
    prefect = Snapshot(queues, tuple(_pools(queues, POOL_LIMITS, moment)), limits)
    demand = Load("", "async", 20, 4, 26, waiting=9).queue(ago, moment)
    waiting = sum(demand.queued.values())
    first = min(waiting, 6)
    cloro = Queue(
        "",
        "async",
        usage_known=True,
        active_slots=demand.active_slots,
        slot_limit=20,
        processing=demand.active_slots,
        queued={str(level): {8: first, 5: waiting - first}.get(level, 0) for level in range(1, 11)},
        blocked=blocked_by({"queue_limit": waiting}, CloroConfig.about.reasons, waiting),
    )
    rate = RateLimit(600, 580 - round(20 * cos(2 * pi * ago / DAY)))
    return {PREFECT: prefect, CLORO: Snapshot((cloro,), rate_limit=rate)}


def many(ago: float, moment: float, queues: int = 300) -> Sources:
    """Thirty pools of ten queues; every seventh queue is full while tasks wait."""
    loads = [
        Load(
            f"team-{number // 10:02}-production",
            f"nightly-batch-of-customer-{number:03}",
            2 + number % 9,
            1.0,
            (3 + number % 9) * 1.3 if number % 7 == 0 else 1.5,
            priority=1 + number % 10,
        )
        for number in range(queues)
    ]
    found = tuple(load.queue(ago, moment) for load in loads)
    limits = {queue.pool: 60 for queue in found}
    return {PREFECT: Snapshot(found, tuple(_pools(found, limits, moment)))}


def _pools(queues: tuple[Queue, ...], limits: Mapping[str, int], moment: float) -> Iterator[Pool]:
    for name in dict.fromkeys(queue.pool for queue in queues):
        taken = sum(queue.active_slots or 0 for queue in queues if queue.pool == name)
        workers = Workers({"ONLINE": 2, "OFFLINE": 0}, moment - 12)
        yield Pool(name, f"id-{name}", "kubernetes", False, taken, limits.get(name), READY, workers)


# --- What a person must be able to read of that week.

EMPTY: Final = {
    "Time to drain": "Not draining",
    "Failures by reason": "Nothing failed",
}
"""Panels that may have nothing to show in that week, and what they say then."""
PARTLY_EMPTY: Final = {
    *EMPTY,
    "Waiting tasks by priority",  # of cloro, two of the levels wait
}
"""Panels of which not every query has a result."""
LEGIBLE: Final[Mapping[str, Mapping[str, str]]] = {
    "overview": {
        "Full, and tasks wait": r"\n[3-5]$",
        "Worst queues first": r"(?s)training\s+100%\s+3\s+3\s+0\s+\d+\s+limit of the queue"
        r".*legacy-imports\s+.*queue is paused",
        "Why tasks wait": r"(?s)deployment limit\s+[1-9].*limit of the queue\s+[1-9].*queue is paused\s+[1-9]",
        "Saturation over time": r"(?s)\d\d/\d\d \d\d:\d\d.*slots free.*pool kubernetes-prod \(prefect-prod\)",
        "Alerts": r"\npages\s+[34]\s+tickets\s+[789]$",
        "Sources": r"(?s)cloro-prod\s+cloro\s+up\s+[\d.]+ (s|mins?)\s+0",
        # Pages first; two limits of one source are two alerts, and a stuck holder's state is named.
        "Firing alerts": r"(?s)Since\s+page\s+ConcurrencySlotsSaturated.*page.*ago"
        r"(?=.*ticket\s+ConcurrencyNearLimit\s+prefect-prod\s+tag database\s)"
        r"(?=.*ticket\s+ConcurrencyNearLimit\s+prefect-prod\s+tag reports\s)"
        r".*ConcurrencySlotHolderStuck\s+prefect-prod\s+kubernetes-prod\s+etl\s+RUNNING(?!.*page)",
    },
    "queue": {
        "Oldest holder": r"(?s)RUNNING\s+[\d.]+ (mins|hours)\s+.*PENDING\s+8 s",
        "Slots": r"(?s)taken.*limit.*waiting",
        "Why tasks wait": r"limit of the queue\s+[1-9]",
        "State durations": r"(?s)\d\d/\d\d.*5 mins.*1 day",
        "Pool": r"kubernetes-prod",
    },
    "capacity": {
        "Queues short of slots": r"\n4$",
        "Queues short of workers": r"\n1$",
        "Headroom": r"\n\d+$",
        "Next limit reached": r"\nin [3-6] days$",
        # Always full: p50, p95, max, no headroom, share of the time at the limit, and for which tasks waited for slots.
        "Queues by need": r"(?s)ecs-ml\s+training\s+3\s+100%\s+100%\s+100%\s+0\s+100\.0%\s+100\.0%\s+0\.0%"
        # Full for some hours each day.
        r".*kubernetes-prod\s+default\s+6\s+[23]\d%\s+100%\s+100%\s+0\s+[23]\d\.\d%\s+[23]\d\.\d%\s+0\.0%"
        # Nobody takes its tasks in the quiet hours.
        r".*ecs-ml\s+inference\s+6\s+\d+%\s+\d+%\s+\d+%\s+[1-4]\s+0\.0%\s+0\.0%\s+3\d\.\d%",
        "Time lost by reason": r"(?s)(?=.*limit of the queue\s+[1-9])(?=.*queue is paused\s+[1-9])"
        r"(?=.*deployment limit\s+[1-9])(?=.*not known\s+[1-9]).*nothing known\s+[1-9]",
        "Busy hours by day": r"(?s)kubernetes-prod/etl.*[78]\d(\.\d)?%",
        "When the limit is reached": r"(?s)kubernetes-prod\s+etl\s+16\s+[78]\d%\s+0\.[5-9]\d\s+20\d\d-\d\d-\d\d ",
        "Demand against another limit": r"(?s)async \(cloro-prod\).*what if\s+10\s+10",
        "With the other limit": r"(?s)async\s+20\s+\d\d\.\d%\s+\d\d\.\d%",
    },
}
"""What has to be legible in a panel of a dashboard, as a regular expression of its text."""
