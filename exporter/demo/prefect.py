"""The look-alike of a Prefect server (3.8.8), as far as an exporter reads it, over a `World`."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from exporter.demo import answers
from exporter.demo.body import (
    DEPLOYMENT_FILTER,
    POOL_FILTER,
    QUEUE_FILTER,
    RUN_FILTER,
    RUN_QUEUE_FILTER,
    Body,
    InvalidRequestError,
    read_body,
)
from exporter.demo.scenario import DEPLOYMENTS, LIMITS, POOLS, QUEUES, WORKERS, Pool, Queue
from exporter.demo.world import Run, World

VERSION = "3.8.8"


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
                    Route("/v2/concurrency_limits/filter", api.limits, methods=["POST"]),
                    Route("/deployments/filter", api.deployments, methods=["POST"]),
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
        limit, offset, wanted = body.limit(), body.offset(), body.filter("work_pools", POOL_FILTER)
        body.check()
        self._now()
        pools = [
            pool
            for pool in POOLS
            if _among(wanted, "id.any_", pool.id)
            and _among(wanted, "name.any_", pool.name)
            and _among(wanted, "type.any_", pool.type)
        ]
        return JSONResponse([answers.pool(pool, self._world) for pool in pools[offset : offset + limit]])

    async def pool_queues(self, request: Request) -> Response:
        """Ordered by priority. `active_slots` counts PENDING and RUNNING: unlike `work_queues`, no CANCELLING."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("work_queues", QUEUE_FILTER)
        body.check()
        self._now()
        queues = [queue for queue in _pool(request).queues if _queue_wanted(queue, wanted)]
        page = queues[offset : offset + limit]
        return JSONResponse([answers.queue(queue, self._world.taken(queue), self._world) for queue in page])

    async def workers(self, request: Request) -> Response:
        """Ordered by the last heartbeat, latest first."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        body.filter("workers", {})
        body.check()
        now, pool = self._now(), _pool(request)
        workers = [worker for worker in WORKERS if worker.pool == pool.name]
        workers.sort(key=self._world.heartbeat, reverse=True)
        return JSONResponse([answers.worker(worker, self._world, now) for worker in workers[offset : offset + limit]])

    async def work_queues(self, request: Request) -> Response:
        """The queues of all pools, ordered by name. `active_slots` counts PENDING, RUNNING and CANCELLING."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("work_queues", QUEUE_FILTER)
        body.check()
        self._now()
        queues = sorted((queue for queue in QUEUES if _queue_wanted(queue, wanted)), key=lambda queue: queue.name)
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
        return JSONResponse(len(self._runs(body)))

    async def flow_runs(self, request: Request) -> Response:
        """The runs that are not finished; finished ones are forgotten at once."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        sort = body.sort("ID_DESC", "NEXT_SCHEDULED_START_TIME_ASC")
        now = self._now()
        runs = self._runs(body)
        if sort == "ID_DESC":
            runs.sort(key=lambda run: run.id, reverse=True)
        else:
            # Runs that are not scheduled come last, as on PostgreSQL; SQLite puts them first.
            runs.sort(key=lambda run: (run.due is None, run.due or run.created, run.id))
        return JSONResponse([answers.flow_run(run, now) for run in runs[offset : offset + limit]])

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
        wanted = body.filter("deployments", DEPLOYMENT_FILTER)
        body.check()
        self._now()
        chosen = sorted(
            (deployment for deployment in DEPLOYMENTS if _among(wanted, "id.any_", deployment.id)),
            key=lambda deployment: (deployment.name, deployment.id),
        )
        page = chosen[offset : offset + limit]
        return JSONResponse(
            [answers.deployment(deployment, DEPLOYMENTS[deployment], self._world) for deployment in page]
        )

    def _runs(self, body: Body) -> list[Run]:
        wanted = body.filter("flow_runs", RUN_FILTER)
        in_queues = body.filter("work_pool_queues", RUN_QUEUE_FILTER)
        body.check()
        before = wanted.get("next_scheduled_start_time.before_")
        return [
            run
            for run in self._world.runs()
            if _among(in_queues, "id.any_", run.queue.id)
            and _among(wanted, "state.type.any_", run.state.type)
            and _among(wanted, "state.name.any_", run.state.name)
            and (before is None or (run.due is not None and run.due <= before))
        ]


def _among(wanted: dict[str, Any], criterion: str, value: object) -> bool:
    return criterion not in wanted or value in wanted[criterion]


def _queue_wanted(queue: Queue, wanted: dict[str, Any]) -> bool:
    return _among(wanted, "id.any_", queue.id) and _among(wanted, "name.any_", queue.name)


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
