"""The look-alike of a Prefect server (3.9.1), as far as an exporter reads it, over a `World`."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from exporter.demo import answers, filters
from exporter.demo.body import Body, InvalidRequestError, moment, number, read_body
from exporter.demo.scenario import DEPLOYMENTS, LIMITS, POOLS, QUEUES, WORKERS, Pool
from exporter.demo.world import Run, World

VERSION = "3.9.1"
MAX_INTERVALS = 500
"""Of a history, at most."""


def application(world: World, clock: Callable[[], datetime]) -> Starlette:
    """The server's REST API below `/api`; the world is played on to the clock's time when a request comes."""
    api = _Api(world, clock)
    return Starlette(
        routes=[
            Mount(
                "/api",
                routes=[
                    Route("/health", api.health),
                    Route("/admin/version", api.version),
                    Route("/work_pools/filter", api.work_pools, methods=["POST"]),
                    Route("/work_pools/{name}/queues/filter", api.pool_queues, methods=["POST"]),
                    Route("/work_pools/{name}/workers/filter", api.workers, methods=["POST"]),
                    Route("/work_queues/filter", api.work_queues, methods=["POST"]),
                    Route("/work_queues/{id:uuid}/concurrency_status", api.queue_status, methods=["POST"]),
                    Route("/flow_runs/count", api.flow_run_count, methods=["POST"]),
                    Route("/flow_runs/filter", api.flow_runs, methods=["POST"]),
                    Route("/flow_runs/history", api.flow_run_history, methods=["POST"]),
                    Route("/v2/concurrency_limits/filter", api.limits, methods=["POST"]),
                    Route("/deployments/filter", api.deployments, methods=["POST"]),
                    Route("/flows/filter", api.flows, methods=["POST"]),
                ],
            ),
        ],
        middleware=[Middleware(GZipMiddleware)],
        exception_handlers={HTTPException: _http_error, InvalidRequestError: _invalid_request},
    )


class _Api:
    """The endpoints."""

    def __init__(self, world: World, clock: Callable[[], datetime]) -> None:
        self._world = world
        self._clock = clock

    def _now(self) -> datetime:
        now = self._clock()
        self._world.advance(now)
        return now

    async def health(self, _: Request) -> Response:
        return JSONResponse(True)

    async def version(self, _: Request) -> Response:
        return JSONResponse(VERSION)

    async def work_pools(self, request: Request) -> Response:
        """Ordered by name."""
        body = await read_body(request)
        limit, offset, wanted = body.limit(), body.offset(), body.filter("work_pools", filters.POOLS)
        body.check()
        self._now()
        pools = [pool for pool in POOLS if filters.pool(pool, wanted)]
        return JSONResponse([answers.pool(pool, self._world) for pool in pools[offset : offset + limit]])

    async def pool_queues(self, request: Request) -> Response:
        """Ordered by priority. `active_slots` counts PENDING and RUNNING: unlike `work_queues`, no CANCELLING."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("work_queues", filters.QUEUES)
        body.check()
        self._now()
        queues = [queue for queue in _pool(request).queues if filters.queue(queue, wanted)]
        page = queues[offset : offset + limit]
        return JSONResponse([answers.queue(queue, self._world.taken(queue), self._world) for queue in page])

    async def workers(self, request: Request) -> Response:
        """Ordered by the last heartbeat, latest first."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("workers", filters.WORKERS)
        body.check()
        now, pool = self._now(), _pool(request)
        beats = {worker: self._world.heartbeat(worker) for worker in WORKERS if worker.pool == pool.name}
        workers = [
            worker for worker, beat in beats.items() if filters.worker(answers.worker_status(beat, now), beat, wanted)
        ]
        workers.sort(key=self._world.heartbeat, reverse=True)
        return JSONResponse([answers.worker(worker, self._world, now) for worker in workers[offset : offset + limit]])

    async def work_queues(self, request: Request) -> Response:
        """The queues of all pools, ordered by name. `active_slots` counts PENDING, RUNNING and CANCELLING."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("work_queues", filters.QUEUES)
        body.check()
        self._now()
        queues = sorted((queue for queue in QUEUES if filters.queue(queue, wanted)), key=lambda queue: queue.name)
        page = queues[offset : offset + limit]
        return JSONResponse([answers.queue(queue, len(self._world.holders(queue)), self._world) for queue in page])

    async def queue_status(self, request: Request) -> Response:
        """Who holds the slots of one queue, ordered by run id."""
        body = await read_body(request)
        limit, page = body.limit(), body.page()
        body.check()
        now = self._now()
        queue = next((queue for queue in QUEUES if queue.id == request.path_params["id"]), None)
        if queue is None:
            raise HTTPException(404, "Work queue not found.")
        holders = sorted(self._world.holders(queue), key=lambda run: run.id)
        shown = holders[(page - 1) * limit : page * limit]
        return JSONResponse(
            {
                "active_slots": len(holders),
                "concurrency_limit": queue.limit,
                "flow_runs": [answers.slot_summary(run, now) for run in shown],
                "count": len(holders),
                "limit": limit,
                "pages": -(-len(holders) // limit) if limit else 0,
                "page": page,
            }
        )

    async def flow_run_count(self, request: Request) -> Response:
        body = await read_body(request)
        self._now()
        return JSONResponse(len(self._runs(body, "work_pool_queues")))

    async def flow_runs(self, request: Request) -> Response:
        """The runs that are not finished; finished ones are forgotten at once."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        sort = body.sort("ID_DESC", "EXPECTED_START_TIME_ASC", "NEXT_SCHEDULED_START_TIME_ASC")
        now = self._now()
        runs = self._runs(body, "work_pool_queues")
        if sort == "ID_DESC":
            runs.sort(key=lambda run: run.id, reverse=True)
        elif sort == "EXPECTED_START_TIME_ASC":
            runs.sort(key=lambda run: (run.expected_start, run.id))
        else:
            # Runs that are not scheduled come last, as on PostgreSQL; SQLite puts them first.
            runs.sort(key=lambda run: (run.due is None, run.due or run.created, run.id))
        return JSONResponse([answers.flow_run(run, now) for run in runs[offset : offset + limit]])

    async def flow_run_history(self, request: Request) -> Response:
        """The runs of each interval by state. Its filter of queues has another name than elsewhere."""
        body = await read_body(request)
        start, end = body.required("history_start", moment), body.required("history_end", moment)
        seconds = body.required("history_interval_seconds", number)
        now = self._now()
        runs = self._runs(body, "work_queues")
        try:
            interval = timedelta(seconds=seconds)
            if interval < timedelta(seconds=1):
                raise HTTPException(422, "History interval must not be less than 1 second.")
            intervals = min(-((start - end) // interval), MAX_INTERVALS)
            return JSONResponse(answers.history(runs, start, interval, intervals, now))
        except (OverflowError, ValueError):
            return JSONResponse({"exception_message": "Internal Server Error"}, 500)

    async def limits(self, request: Request) -> Response:
        """Global, tag and deployment limits, ordered by name."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        body.check()
        self._now()
        rows = [answers.limit(limit, self._world) for limit in LIMITS]
        rows += filter(None, (answers.deployment_limit(deployment, self._world) for deployment in DEPLOYMENTS))
        rows.sort(key=lambda row: row["name"])
        return JSONResponse(rows[offset : offset + limit])

    async def deployments(self, request: Request) -> Response:
        """Ordered by name."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("deployments", filters.DEPLOYMENTS)
        body.check()
        self._now()
        chosen = sorted(
            (deployment for deployment in DEPLOYMENTS if filters.deployment(deployment, wanted)),
            key=lambda deployment: (deployment.name, deployment.id),
        )
        page = chosen[offset : offset + limit]
        return JSONResponse(
            [answers.deployment(deployment, DEPLOYMENTS[deployment], self._world) for deployment in page]
        )

    async def flows(self, request: Request) -> Response:
        """Ordered by name."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("flows", filters.FLOWS)
        body.check()
        self._now()
        names = sorted({deployment.flow for deployment in DEPLOYMENTS})
        page = [name for name in names if filters.flow(name, wanted)][offset : offset + limit]
        return JSONResponse([answers.flow(name, self._world) for name in page])

    def _runs(self, body: Body, queue_filter: str) -> list[Run]:
        """The runs that are asked for; refuses the request if anything in it was wrong."""
        wanted = body.filter("flow_runs", filters.RUNS)
        in_queues = body.filter(queue_filter, filters.QUEUES)
        body.check()
        return [run for run in self._world.runs() if filters.queue(run.queue, in_queues) and filters.run(run, wanted)]


def _pool(request: Request) -> Pool:
    name = request.path_params["name"]
    for pool in POOLS:
        if pool.name == name:
            return pool
    raise HTTPException(404, f'Work pool "{name}" not found.')


async def _http_error(_: Request, error: Exception) -> Response:
    refused = cast("HTTPException", error)
    return JSONResponse({"detail": refused.detail}, refused.status_code, refused.headers)


async def _invalid_request(_: Request, error: Exception) -> Response:
    return JSONResponse(cast("InvalidRequestError", error).answer, 422)
