"""A Prefect server that never stands still, and what may be said of it: a writer, its log, and the bounds of a poll.

The writer does one thing after the other over the REST API, as fast as the server takes it, and logs the whole world
after each of them, with the times between which it came to be. So for any poll it is known which worlds there were.
"""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import httpx

from exporter import model as observed
from exporter.demo.states import QUEUE_HOLDERS
from exporter.model import Snapshot
from tests.harness.prefect import PrefectApi

WAITING: Final = ("Scheduled", "Late", "AwaitingConcurrencySlot", "AwaitingRetry")
_FINAL: Final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
HOLDERS: Final = 110
"""About so many runs hold slots, on several pages."""
WAITERS: Final = 170
"""About so many wait."""
POOLS: Final = ("even-1", "even-2", "even-3", "odd-1", "odd-2", "odd-3")
QUEUES: Final = 30
"""In all pools; one of each is its `default`."""
LIMITS: Final = 25


@dataclass(frozen=True)
class Run:
    """A flow run: its state, and its queue as its two columns say."""

    type: str
    name: str
    queue: str | None
    queue_name: str


@dataclass(frozen=True)
class Queue:
    """A work queue."""

    pool: str
    name: str
    limit: int | None
    paused: bool
    priority: int


@dataclass(frozen=True)
class Pool:
    """A work pool."""

    limit: int
    paused: bool


@dataclass(frozen=True)
class Limit:
    """A global limit."""

    name: str
    slots: int
    active_slots: int


@dataclass(frozen=True)
class World:
    """All that the writer has made; runs, queues and limits by id, pools by name."""

    runs: Mapping[str, Run] = field(default_factory=dict)
    queues: Mapping[str, Queue] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)

    def only(self, admits: Callable[[str], bool]) -> "World":
        """The world of a source that reads only these pools."""
        return replace(
            self,
            pools={name: pool for name, pool in self.pools.items() if admits(name)},
            queues={one: queue for one, queue in self.queues.items() if admits(queue.pool)},
        )

    def count(self) -> Mapping[str, Counter[tuple[str, str]]]:
        """The number of runs by their queue's id, or by its name where they have none, and by their state."""
        counts: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        for run in self.runs.values():
            counts[run.queue or run.queue_name][run.type, run.name] += 1
        return counts


@dataclass(frozen=True)
class Moment:
    """A world, and the request that made it: it came to be between these times of the monotonic clock."""

    what: str
    world: World
    begun: float
    done: float


class Writer:
    """Changes a server until it is stopped. `error` is what ended it, if anything did."""

    def __init__(self, client: httpx.Client, seed: int) -> None:
        self.moments: list[Moment] = [Moment("nothing", World(), time.monotonic(), time.monotonic())]
        self.error: BaseException | None = None
        self._api = PrefectApi(client)
        self._random = random.Random(seed)  # noqa: S311
        self._stands = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._named = 0
        self._flow = self._api.create_flow("moving")
        for pool in POOLS:
            self._make_pool(pool)
        while len(self.world.queues) < QUEUES:
            self._make_queue()
        while len(self.world.limits) < LIMITS:
            self._make_limit()
        for number in range(HOLDERS + WAITERS):
            self._make_run(holds=number < HOLDERS)

    @property
    def world(self) -> World:
        """The newest."""
        return self.moments[-1].world

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write while the context lasts; raises what the writer has failed with."""
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join()
        if self.error:
            raise self.error

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Nothing is changed while the context lasts, and nothing is under way."""
        with self._stands:
            yield

    def moments_between(self, begun: float, ended: float) -> list[Moment]:
        """Those that there may have been between the two times; to be asked while it stands still."""
        ends = [moment.done for moment in self.moments[1:]] + [float("inf")]
        return [
            moment for moment, end in zip(self.moments, ends, strict=True) if moment.begun <= ended and end >= begun
        ]

    def _write(self) -> None:
        steps: list[tuple[int, Callable[[], None]]] = [
            (60, self._move_run),
            (8, self._make_some_run),
            (4, self._change_queue),
            (2, self._rename_queue),
            (2, self._replace_queue),
            (1, self._change_pool),
            (3, self._change_limit),
            (2, self._replace_limit),
        ]
        weights, choices = zip(*steps, strict=True)
        try:
            while not self._ended.is_set():
                with self._stands:
                    self._random.choices(choices, weights)[0]()
                # Whoever waits for it to stand still gets the lock, which is not fair.
                time.sleep(0.001)
        except BaseException as error:  # noqa: BLE001  handed over to `writing`
            self.error = error

    def _do(self, what: str, method: str, path: str, body: object, then: Callable[[Any], World]) -> Any:
        begun = time.monotonic()
        answer = self._api.request(method, path, body)
        self.moments.append(Moment(what, then(answer), begun, time.monotonic()))
        return answer

    def _one(self, of: Mapping[str, Any]) -> str:
        return self._random.choice(list(of))

    def _new_name(self, kind: str) -> str:
        self._named += 1
        return f"{self._random.choice('abcxyz')}-{kind}-{self._named}"

    # --- What it does.

    def _make_pool(self, name: str) -> None:
        body = {"name": name, "type": "process", "concurrency_limit": 500}
        made = self._api.request("POST", "/work_pools/", body)
        (queue,) = self._api.request("POST", f"/work_pools/{name}/queues/filter", {})
        world = replace(
            self.world,
            pools={**self.world.pools, name: Pool(500, paused=False)},
            queues={**self.world.queues, queue["id"]: Queue(name, "default", None, False, queue["priority"])},
        )
        assert made["default_queue_id"] == queue["id"]
        self.moments.append(Moment(f"pool {name}", world, self.moments[-1].done, time.monotonic()))

    def _make_queue(self, pool: str | None = None, name: str | None = None) -> None:
        pool, name = pool or self._random.choice(POOLS), name or self._new_name("queue")
        limit = self._random.choice([None, 1, 5])

        def then(made: Any) -> World:
            queue = Queue(pool, name, limit, False, made["priority"])
            return replace(self.world, queues={**self.world.queues, made["id"]: queue})

        body = {"name": name, "concurrency_limit": limit}
        self._do(f"queue {name}", "POST", f"/work_pools/{quote(pool)}/queues", body, then)

    def _make_run(self, *, holds: bool) -> None:
        queue = self._one(self.world.queues)
        of = self.world.queues[queue]
        kind, name = self._random.choice([(one, one.title()) for one in QUEUE_HOLDERS]) if holds else self._waits()

        def then(made: Any) -> World:
            return replace(self.world, runs={**self.world.runs, made["id"]: Run(kind, name, queue, of.name)})

        body = {
            "flow_id": self._flow,
            "state": _state(kind, name),
            "work_pool_name": of.pool,
            "work_queue_name": of.name,
            # So that a request which is sent again makes one run.
            "idempotency_key": str(self._random.getrandbits(64)),
        }
        self._do(f"run in {of.name}", "POST", "/flow_runs/", body, then)

    def _waits(self) -> tuple[str, str]:
        return "SCHEDULED", self._random.choice(WAITING)

    def _make_some_run(self) -> None:
        waiting = sum(run.type == "SCHEDULED" for run in self.world.runs.values())
        holding = sum(run.type in QUEUE_HOLDERS for run in self.world.runs.values())
        if waiting < WAITERS or holding < HOLDERS:
            self._make_run(holds=holding < HOLDERS)

    def _move_run(self) -> None:
        """One that waits gets its slot while few hold one; one that holds a slot goes on, or gives it back."""
        world = self.world
        holding = {one: run for one, run in world.runs.items() if run.type in QUEUE_HOLDERS}
        waiting = {one: run for one, run in world.runs.items() if run.type == "SCHEDULED"}
        back = {one: run for one, run in world.runs.items() if run.type == "PAUSED"}
        if waiting and (len(holding) < HOLDERS or not holding):
            run = self._one(back if back and self._random.random() < 0.3 else waiting)
            return self._set_state(run, "PENDING", "Pending")
        run = self._one(holding)
        choices = {
            "PENDING": [("RUNNING", "Running"), ("RUNNING", "Running"), ("CRASHED", "Crashed")],
            "RUNNING": [
                ("COMPLETED", "Completed"),
                ("FAILED", "Failed"),
                ("CANCELLING", "Cancelling"),
                ("PAUSED", "Suspended"),
                ("SCHEDULED", "AwaitingRetry"),
            ],
            "CANCELLING": [("CANCELLED", "Cancelled")],
        }
        return self._set_state(run, *self._random.choice(choices[holding[run].type]))

    def _set_state(self, run: str, kind: str, name: str) -> None:
        def then(answer: Any) -> World:
            assert answer["status"] == "ACCEPT", answer
            return replace(
                self.world, runs={**self.world.runs, run: replace(self.world.runs[run], type=kind, name=name)}
            )

        def without(_: Any) -> World:
            return replace(self.world, runs={one: of for one, of in self.world.runs.items() if one != run})

        body = {"state": _state(kind, name), "force": True}
        self._do(f"{run} is {name}", "POST", f"/flow_runs/{run}/set_state", body, then)
        if kind in _FINAL:
            # The reader lists all runs.
            self._do(f"no {run}", "DELETE", f"/flow_runs/{run}", None, without)
            # Another one, so that the listings keep their pages, however long it writes.
            self._make_run(holds=False)

    def _patch_queue(self, queue: str, **changed: Any) -> None:
        fields = {"is_paused": "paused", "concurrency_limit": "limit"}

        def then(_: Any) -> World:
            new = replace(self.world.queues[queue], **{fields.get(key, key): one for key, one in changed.items()})
            return replace(self.world, queues={**self.world.queues, queue: new})

        self._do(f"queue {queue}: {changed}", "PATCH", f"/work_queues/{queue}", changed, then)

    def _change_queue(self) -> None:
        queue = self._one(self.world.queues)
        paused = self.world.queues[queue].paused
        changes: list[dict[str, Any]] = [
            {"is_paused": not paused},
            {"concurrency_limit": self._random.randint(0, 9)},
            {"priority": self._random.randint(1, 50)},
        ]
        self._patch_queue(queue, **self._random.choice(changes))

    def _rename_queue(self) -> None:
        others = {one: queue for one, queue in self.world.queues.items() if queue.name != "default"}
        self._patch_queue(self._one(others), name=self._new_name("queue"))

    def _replace_queue(self) -> None:
        """Its runs stay without the queue's id, and hold slots of the one that has its name next."""
        others = {one: queue for one, queue in self.world.queues.items() if queue.name != "default"}
        queue = self._one(others)

        def then(_: Any) -> World:
            queues = {one: of for one, of in self.world.queues.items() if one != queue}
            runs = {
                one: replace(run, queue=None) if run.queue == queue else run for one, run in self.world.runs.items()
            }
            return replace(self.world, queues=queues, runs=runs)

        self._do(f"no queue {others[queue].name}", "DELETE", f"/work_queues/{queue}", None, then)
        self._make_queue(others[queue].pool, others[queue].name)

    def _change_pool(self) -> None:
        name = self._one(self.world.pools)
        pool = Pool(self._random.randint(1, 500), not self.world.pools[name].paused)

        def then(_: Any) -> World:
            return replace(self.world, pools={**self.world.pools, name: pool})

        body = {"is_paused": pool.paused, "concurrency_limit": pool.limit}
        self._do(f"pool {name}: {pool}", "PATCH", f"/work_pools/{name}", body, then)

    def _make_limit(self) -> None:
        limit = Limit(self._new_name("limit"), self._random.randint(1, 9), self._random.randint(0, 9))

        def then(made: Any) -> World:
            return replace(self.world, limits={**self.world.limits, made["id"]: limit})

        body = {"name": limit.name, "limit": limit.slots, "active_slots": limit.active_slots}
        self._do(f"limit {limit.name}", "POST", "/v2/concurrency_limits/", body, then)

    def _change_limit(self) -> None:
        one = self._one(self.world.limits)
        limit = Limit(self._new_name("limit"), self._random.randint(1, 9), self._random.randint(0, 9))

        def then(_: Any) -> World:
            return replace(self.world, limits={**self.world.limits, one: limit})

        body = {"name": limit.name, "limit": limit.slots, "active_slots": limit.active_slots}
        self._do(f"limit {limit.name}", "PATCH", f"/v2/concurrency_limits/{one}", body, then)

    def _replace_limit(self) -> None:
        one = self._one(self.world.limits)

        def then(_: Any) -> World:
            return replace(self.world, limits={key: of for key, of in self.world.limits.items() if key != one})

        self._do(f"no limit {one}", "DELETE", f"/v2/concurrency_limits/{one}", None, then)
        self._make_limit()


def _state(kind: str, name: str) -> dict[str, object]:
    state: dict[str, object] = {"type": kind, "name": name}
    if kind == "SCHEDULED":
        due = datetime.now(UTC) - timedelta(seconds=60)
        state["state_details"] = {"scheduled_time": due.isoformat()}
    return state


# --- What a poll may say.


class Judge:
    """Compares the snapshot of a poll with the worlds that there were while it ran.

    Every value that it says of a thing was true at one of these moments.
    """

    def __init__(self, worlds: Sequence[World]) -> None:
        self.false: list[str] = []
        self.values = 0
        self._worlds = worlds
        self._counts = [world.count() for world in worlds]

    def look_at(self, snapshot: Snapshot) -> None:
        """Every value of it."""
        self._there("queues", {queue.id for queue in snapshot.queues}, lambda world: set(world.queues))
        self._there("limits", {limit.id for limit in snapshot.limits}, lambda world: set(world.limits))
        self._there("pools", {pool.name for pool in snapshot.pools}, lambda world: set(world.pools))
        for queue in snapshot.queues:
            self._look_at_queue(queue)
        for limit in snapshot.limits:
            limits = [world.limits[limit.id] for world in self._worlds if limit.id in world.limits]
            self._one_of(f"limit {limit.id}", Limit(limit.name, limit.slot_limit, limit.active_slots), limits)
        for pool in snapshot.pools:
            pools = [world.pools[pool.name] for world in self._worlds]
            self._one_of(f"pool {pool.name}", Pool(pool.slot_limit or 0, bool(pool.paused)), pools)

    def _look_at_queue(self, queue: observed.Queue) -> None:
        what = f"queue {queue.name}"
        of = [world.queues[queue.id] for world in self._worlds if queue.id in world.queues]
        self._one_of(f"{what}: name", (queue.pool, queue.name), [(one.pool, one.name) for one in of])
        self._one_of(f"{what}: limit", queue.slot_limit, [one.limit for one in of])
        self._one_of(f"{what}: paused", queue.paused, [one.paused for one in of])
        self._one_of(f"{what}: priority", queue.priority, [one.priority for one in of])

        # A deleted queue has no runs; those that had its id hold slots of the one that has its name next.
        at_times: list[tuple[Mapping[tuple[str, str], int], ...]] = [
            (
                counts.get(queue.id, {}),
                counts.get(world.queues[queue.id].name if queue.id in world.queues else queue.name, {}),
            )
            for world, counts in zip(self._worlds, self._counts, strict=True)
        ]

        def number(of: str, value: int | None, counts: Callable[[str, str], bool], *, by_name: bool) -> None:
            self._one_of(
                f"{what}: {of}",
                value,
                [
                    sum(
                        number
                        for by in ((by_id, named) if by_name else (by_id,))
                        for state, number in by.items()
                        if counts(*state)
                    )
                    for by_id, named in at_times
                ],
            )

        def holders(of: str, value: int | None, *types: str) -> None:
            number(of, value, lambda kind, _: kind in types, by_name=True)

        def waiting(of: str, value: int | None, *names: str) -> None:
            number(of, value, lambda kind, name: kind == "SCHEDULED" and name in names, by_name=False)

        holders("active", queue.active_slots, *QUEUE_HOLDERS)
        holders("processing", queue.processing, "RUNNING")
        for state in QUEUE_HOLDERS:
            holders(state, queue.holders[state].count, state)
            holders(f"ages of {state}", len(queue.holders[state].seconds), state)
        waiting("queued", sum(queue.queued.values()), *WAITING)
        for name in WAITING:
            waiting(name, queue.waiting[name].count, name)

    def _one_of(self, what: str, value: object, allowed: Sequence[object]) -> None:
        self.values += 1
        if value not in allowed:
            self.false.append(f"{what} is {value}, and was {allowed}")

    def _there(self, kind: str, found: set[str], ids: Callable[[World], set[str]]) -> None:
        self.values += 1
        at_times = [ids(world) for world in self._worlds]
        if lost := at_times[0].intersection(*at_times) - found:
            self.false.append(f"{kind} {lost} are missing")
        if invented := found - at_times[0].union(*at_times):
            self.false.append(f"{kind} {invented} do not exist")
