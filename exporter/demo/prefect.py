"""The look-alike of a Prefect server (3.9.1), as far as an exporter reads it, over any `Rows`."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from exporter.demo import answers, filters
from exporter.demo.body import Body, InvalidRequestError, moment, number, read_body
from exporter.demo.rows import Pool, Rows, Run
from exporter.demo.states import POOL_HOLDERS, QUEUE_HOLDERS

VERSION = "3.9.1"
MAX_INTERVALS = 500
"""Of a history, at most."""


def application(rows: Callable[[datetime], Rows], clock: Callable[[], datetime]) -> Starlette:
    """The server's REST API below `/api`. Each request is answered from the rows of the moment that the clock tells."""
    api = _Api(rows, clock)
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
            *(
                Route(f"/{page}", _no_page)
                for page in ("runs/flow-run/{id}", "work-pools/{path:path}", "concurrency-limits{path:path}")
            ),
        ],
        middleware=[Middleware(GZipMiddleware)],
        exception_handlers={HTTPException: _http_error, InvalidRequestError: _invalid_request},
    )


class _Api:
    """The endpoints."""

    def __init__(self, rows: Callable[[datetime], Rows], clock: Callable[[], datetime]) -> None:
        self._rows = rows
        self._clock = clock

    def _read(self) -> tuple[Rows, datetime]:
        now = self._clock()
        return self._rows(now), now

    async def health(self, _: Request) -> Response:
        return JSONResponse(True)

    async def version(self, _: Request) -> Response:
        return JSONResponse(VERSION)

    async def work_pools(self, request: Request) -> Response:
        """Ordered by name."""
        body = await read_body(request)
        limit, offset, wanted = body.limit(), body.offset(), body.filter("work_pools", filters.POOLS)
        body.check()
        rows, _ = self._read()
        pools = sorted((pool for pool in rows.pools if filters.pool(pool, wanted)), key=lambda pool: pool.name)
        taken: Counter[str] = Counter()
        for queue, slots in rows.taken(POOL_HOLDERS).items():
            taken[queue.pool] += slots
        page = pools[offset : offset + limit]
        return JSONResponse([answers.pool(pool, taken[pool.name], rows) for pool in page])

    async def pool_queues(self, request: Request) -> Response:
        """Ordered by priority. `active_slots` counts PENDING and RUNNING: unlike `work_queues`, no CANCELLING."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("work_queues", filters.QUEUES)
        body.check()
        rows, _ = self._read()
        pool, taken = _pool(request, rows), rows.taken(POOL_HOLDERS)
        queues = [queue for queue in rows.queues if queue.pool == pool.name and filters.queue(queue, wanted)]
        queues.sort(key=lambda queue: queue.priority)
        page = queues[offset : offset + limit]
        return JSONResponse([answers.queue(queue, taken[queue], rows) for queue in page])

    async def workers(self, request: Request) -> Response:
        """Ordered by the last heartbeat, latest first."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("workers", filters.WORKERS)
        body.check()
        rows, now = self._read()
        pool = _pool(request, rows)
        workers = [worker for worker in rows.workers if worker.pool == pool.name and filters.worker(worker, wanted)]
        workers.sort(key=lambda worker: worker.last_heartbeat, reverse=True)
        return JSONResponse([answers.worker(worker, rows, now) for worker in workers[offset : offset + limit]])

    async def work_queues(self, request: Request) -> Response:
        """The queues of all pools, ordered by name. `active_slots` counts PENDING, RUNNING and CANCELLING."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("work_queues", filters.QUEUES)
        body.check()
        rows, _ = self._read()
        taken = rows.taken(QUEUE_HOLDERS)
        queues = sorted((queue for queue in rows.queues if filters.queue(queue, wanted)), key=lambda queue: queue.name)
        page = queues[offset : offset + limit]
        return JSONResponse([answers.queue(queue, taken[queue], rows) for queue in page])

    async def queue_status(self, request: Request) -> Response:
        """Return the holders of the slots of one queue, ordered by run id."""
        body = await read_body(request)
        limit, page = body.limit(), body.page()
        body.check()
        rows, now = self._read()
        queue = next((queue for queue in rows.queues if queue.id == request.path_params["id"]), None)
        if queue is None:
            raise HTTPException(404, "Work queue not found.")
        holders = sorted(rows.holders(queue), key=lambda run: run.id)
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
        rows, _ = self._read()
        return JSONResponse(len(_runs(rows, body, "work_pool_queues")))

    async def flow_runs(self, request: Request) -> Response:
        """The runs that are not finished; finished ones are forgotten at once."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        sort = body.sort("ID_DESC", "EXPECTED_START_TIME_ASC", "NEXT_SCHEDULED_START_TIME_ASC")
        rows, now = self._read()
        runs = _runs(rows, body, "work_pool_queues")
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
        rows, now = self._read()
        runs = _runs(rows, body, "work_queues")
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
        rows, _ = self._read()
        limits = sorted(rows.limits, key=lambda limit: limit.name)
        return JSONResponse([answers.limit(limit, rows) for limit in limits[offset : offset + limit]])

    async def deployments(self, request: Request) -> Response:
        """Ordered by name."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("deployments", filters.DEPLOYMENTS)
        body.check()
        rows, _ = self._read()
        chosen = sorted(
            (deployment for deployment in rows.deployments if filters.deployment(deployment, wanted)),
            key=lambda deployment: (deployment.name, deployment.id),
        )
        page = chosen[offset : offset + limit]
        return JSONResponse([answers.deployment(deployment, rows.deployments[deployment], rows) for deployment in page])

    async def flows(self, request: Request) -> Response:
        """Ordered by name."""
        body = await read_body(request)
        limit, offset = body.limit(), body.offset()
        wanted = body.filter("flows", filters.FLOWS)
        body.check()
        rows, _ = self._read()
        names = sorted({deployment.flow for deployment in rows.deployments})
        page = [name for name in names if filters.flow(name, wanted)][offset : offset + limit]
        return JSONResponse([answers.flow(name, rows) for name in page])


def _runs(rows: Rows, body: Body, queue_filter: str) -> list[Run]:
    """The runs that are asked for; refuses the request if anything in it was wrong."""
    wanted = body.filter("flow_runs", filters.RUNS)
    in_queues = body.filter(queue_filter, filters.QUEUES)
    body.check()
    return [run for run in rows.runs if filters.queue(run.queue, in_queues) and filters.run(run, wanted)]


def _pool(request: Request, rows: Rows) -> Pool:
    name = request.path_params["name"]
    for pool in rows.pools:
        if pool.name == name:
            return pool
    raise HTTPException(404, f'Work pool "{name}" not found.')


async def _no_page(_: Request) -> Response:
    """The answer to a link into the UI."""
    return PlainTextResponse(
        "This is a demo of a Prefect server, without its UI. Of a real server, this link leads there.\n"
    )


async def _http_error(_: Request, error: Exception) -> Response:
    refused = cast("HTTPException", error)
    return JSONResponse({"detail": refused.detail}, refused.status_code, refused.headers)


async def _invalid_request(_: Request, error: Exception) -> Response:
    return JSONResponse(cast("InvalidRequestError", error).answer, 422)
