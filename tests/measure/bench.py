"""`make bench`: what polls, scrapes, memory and the start cost, as ratios to the least that they could cost.

The upstream is a look-alike in a process of its own whose answers are ready bytes: what is measured is ours.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from exporter.demo.rows import Pool, Queue
from exporter.metrics.body import Body
from exporter.metrics.text import Format
from exporter.polling.poller import Poller
from exporter.polling.store import Store
from exporter.polling.telemetry import Telemetry
from exporter.shard import WHOLE, Shard
from exporter.sources.prefect import PrefectConfig
from exporter.sources.prefect.slots import HOLDING_STATES
from exporter.web.listeners import listen
from exporter.web.server import Server
from tests.harness.board import Board, many
from tests.harness.exporter import exporter, series
from tests.harness.inprocess import Exporter, Time
from tests.harness.lookalike import COUNT, POOLS, QUEUES, Lookalike, flow_run, one_status
from tests.harness.prefect import PrefectServer
from tests.harness.process import Process, accepts, free_port
from tests.harness.seed import fleet, seed
from tests.harness.upstream import Answer, Request, answer, serve

SIZES: Final = [(queues, holders) for queues in (10, 100, 1_000) for holders in (0, 10, 1_000)]
PAGE: Final = 200
CONCURRENCY: Final = 4
NAME: Final = "prefect"
SLOTS: Final = ("queues", "pools")


def pools_of(queues: int) -> list[Pool]:
    """So many pools that each has 10 of the queues."""
    return [Pool(f"pool-{number}", limit=50) for number in range(-(-queues // 10))]


def queues_of(queues: int) -> list[Queue]:
    """The queues of the upstream."""
    return [Queue(f"pool-{number // 10}", f"queue-{number:06}", limit=5) for number in range(queues)]


def upstream(queues: int, holders: int) -> Answer:
    """A Prefect with 10 queues in each pool and `holders` runs in each queue; it has each answer ready after the first.

    The look-alike has the holders of one queue, which are told of each: a million runs are too many for its memory.
    """
    now = datetime.now(UTC)
    listed = queues_of(queues)
    server = Lookalike(
        pools=pools_of(queues),
        queues=listed,
        runs=[
            flow_run(number + 1, "Running", listed[0], now - timedelta(seconds=number * 1.5))
            for number in range(holders)
        ],
        dated=False,  # a Date that is kept gets older
        faults={COUNT: answer(10**9)},  # so many holders that each queue is asked
    )
    ready: dict[tuple[str, bytes], bytes] = {}

    async def first(path: str, request: Request) -> bytes:
        ready[path, request.body] = reply = await server(replace(request, path=path))
        return reply

    def reply(request: Request) -> bytes | Awaitable[bytes]:
        path = f"/api{one_status(listed[0])}" if request.path.endswith("/concurrency_status") else request.path
        return ready.get((path, request.body)) or first(path, request)

    return reply


async def run_upstream(queues: int, holders: int, port: int) -> None:
    """Serve until the process is ended."""
    async with serve(upstream(queues, holders), port=port):
        await asyncio.Event().wait()


async def run_static(size: int, port: int) -> None:
    """Serve a file of `size` bytes, from memory, with the server of the exporter."""
    content = b"x" * size
    routes = [Route("/metrics", lambda _: Response(content, media_type="text/plain"))]
    listener = listen("127.0.0.1", port)
    await Server(Starlette(routes=routes), graceful_seconds=1).serve([listener])


@contextmanager
def child(what: str, *arguments: object) -> Iterator[str]:
    """One of the two servers above in a process of its own: its address."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "tests.measure.bench", what, *map(str, arguments), str(port)]
        process = Process(command, log=Path(directory) / "log")
        try:
            process.wait_until(accepts(port), what=f"{what} listens")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stop()


@asynccontextmanager
async def polling(url: str, shard: Shard = WHOLE, **more: object) -> AsyncIterator[tuple[Poller, Store, Telemetry]]:
    """A poller of what `shard` reads of that upstream, without a schedule; `more` are settings of the source."""
    settings = {"name": NAME, "system": "prefect", "url": url, "interval": "10m", "concurrency": CONCURRENCY}
    config = PrefectConfig.model_validate(settings | more)
    async with Exporter(config, time=Time.running(), shard=shard) as exporter:
        yield exporter.poller, exporter.store, exporter.telemetry


async def bare(url: str, queues: int, holders: int) -> None:
    """The requests of one poll by a plain client that keeps its connections and looks at nothing."""
    discovery = [(f"/api{POOLS}", {"limit": PAGE, "offset": 0})]
    discovery += [(f"/api{QUEUES}", {"limit": PAGE, "offset": offset}) for offset in range(0, queues, PAGE)]
    pages = max(1, -(-holders // PAGE))
    reads = [
        (f"/api{one_status(queue)}", {"page": page}) for queue in queues_of(queues) for page in range(1, pages + 1)
    ]
    limits = httpx.Limits(max_connections=CONCURRENCY)
    async with httpx.AsyncClient(base_url=url, limits=limits, trust_env=False, verify=False) as client:  # noqa: S501
        waiting = iter(discovery + reads)

        async def worker() -> None:
            for path, body in waiting:
                (await client.post(path, json=body, headers={"Accept-Encoding": "identity"})).raise_for_status()

        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


def resident() -> float:
    """Resident memory of this process now, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def polls() -> None:
    """Requests and time of a poll against the bare client; seconds are the least of three."""
    print("\nPolls (target: at most 1.3 times the bare client)")
    print(f"{'queues':>7} {'holders':>8} {'requests':>9} {'poll s':>8} {'bare s':>8} {'ratio':>6}")
    for queues, holders in SIZES:
        with child("upstream", queues, holders) as url:
            async with polling(f"{url}/api", collect=SLOTS) as (poller, store, telemetry):
                times: dict[str, list[float]] = {"poll": [], "bare": []}
                rounds = 3 if queues * holders < 100_000 else 1
                # Until upstream has all answers ready; the second poll is the first that lists all queues at once.
                await several(lambda: poller.poll(NAME), 2)
                await bare(url, queues, holders)
                before = telemetry.requests(NAME)
                for _ in range(rounds):
                    for what, run in (("bare", bare(url, queues, holders)), ("poll", poller.poll(NAME))):
                        start = time.perf_counter()
                        await run
                        times[what].append(time.perf_counter() - start)
                assert store.view().states[0].outcome == "success", store.view().states[0].failure
                requests = (telemetry.requests(NAME) - before) // rounds
        poll, least = min(times["poll"]), min(times["bare"])
        print(f"{queues:>7} {holders:>8} {requests:>9} {poll:>8.3f} {least:>8.3f} {poll / least:>6.2f}", flush=True)


def scrapes() -> None:
    """Time of a scrape against a file of the same size."""
    print("\nScrapes, medians of 300 (target: at most 2 times a file of the same size from the same server)")
    print(
        f"{'queues':>7} {'holders':>8} {'format':>12} {'encoding':>9} {'bytes':>9} {'ms':>7} {'file':>7} {'ratio':>6}"
    )
    for queues, holders in [(queues, 10) for queues in (10, 100, 1_000)]:
        with child("upstream", queues, holders) as url, tempfile.TemporaryDirectory() as directory:
            config = Path(directory) / "config.yml"
            config.write_text(
                f"sources: [{{name: p, system: prefect, url: '{url}/api', interval: 1m, collect: [queues, pools]}}]"
            )
            with exporter(Path(directory), f"--config.file={config}") as running:
                for format_, accept in (("classic", "text/plain"), ("openmetrics", "application/openmetrics-text")):
                    for encoding in ("identity", "gzip"):
                        headers = {"Accept": accept, "Accept-Encoding": encoding}
                        size, ours = fetch(f"{running.url}/metrics", headers)
                        with child("static", size) as static:
                            _, file = fetch(f"{static}/metrics", headers)
                        print(
                            f"{queues:>7} {holders:>8} {format_:>12} {encoding:>9} {size:>9}"
                            f" {ours * 1e3:>7.2f} {file * 1e3:>7.2f} {ours / file:>6.2f}",
                            flush=True,
                        )


def api() -> None:
    """Time of the JSON API against a scrape of the same size, which is one of few queues, and against a file."""
    print("\nJSON, medians of 300 (target: one queue at most 1.5 times a scrape of the same size)")
    print(f"{'queues':>7} {'route':>10} {'bytes':>9} {'ms':>7} {'file':>7} {'ratio':>6} {'to a scrape':>12}")
    one = "source=p&pool=pool-0&queue=queue-000000"
    with serving(1, 10) as url:
        scraped, scrape = fetch(f"{url}/metrics?source=p", {"Accept-Encoding": "identity"})
    print(f"{1:>7} {'a scrape':>10} {scraped:>9} {scrape * 1e3:>7.2f}", flush=True)
    for queues in (10, 1_000):
        with serving(queues, 10) as url:
            for route in (f"queue?{one}", f"headroom?{one}", "queues", "sources"):
                size, ours = fetch(f"{url}/api/v1/{route}", {"Accept-Encoding": "identity"})
                with child("static", size) as static:
                    _, file = fetch(f"{static}/metrics", {})
                print(
                    f"{queues:>7} {route.split('?')[0]:>10} {size:>9} {ours * 1e3:>7.2f} {file * 1e3:>7.2f}"
                    f" {ours / file:>6.2f} {ours / scrape:>12.2f}",
                    flush=True,
                )


@contextmanager
def serving(queues: int, holders: int) -> Iterator[str]:
    """An exporter that has polled such an upstream, as `p`: its address."""
    with child("upstream", queues, holders) as url, tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "config.yml"
        config.write_text(f"sources: [{{name: p, system: prefect, url: '{url}/api', interval: 1h, timeout: 10m}}]")
        with exporter(Path(directory), f"--config.file={config}") as running:
            yield running.url


def fetch(url: str, headers: dict[str, str]) -> tuple[int, float]:
    """Bytes on the wire, and the median seconds of one request on a kept connection."""
    times = []
    with httpx.Client(trust_env=False, headers=headers) as client:
        for _ in range(300):
            start = time.perf_counter()
            with client.stream("GET", url) as response:
                size = sum(len(chunk) for chunk in response.iter_raw())
            times.append(time.perf_counter() - start)
    return size, statistics.median(times)


async def board() -> None:
    """CPU time of the board of many queues: made for a snapshot and a filter, and when it was made before."""
    print("\nThe board, CPU ms, the least of five snapshots (target: 100 ms for 10,000 queues)")
    print(f"{'queues':>7} {'filter':>14} {'bytes':>9} {'made':>7} {'again':>7}")
    for queues in (100, 1_000, 10_000):
        served = Board()
        served.add(NAME)
        made: dict[str, list[float]] = {"": [], "?full=true": [], "?text=queue-0": []}
        again: dict[str, list[float]] = {query: [] for query in made}
        sizes = {}
        for _ in range(5):
            served.publish(NAME, many(queues), max_series=10_000_000)
            for query in made:
                for times in (made, again):
                    begin = time.process_time()
                    sizes[query] = len((await served.get(f"/{query}")).content)
                    times[query].append((time.process_time() - begin) * 1e3)
        for query, size in sizes.items():
            print(f"{queues:>7} {query:>14} {size:>9} {min(made[query]):>7.1f} {min(again[query]):>7.1f}", flush=True)


async def memory() -> None:
    """Resident memory after polls of 55 queues with 10 holders each, all scraped in both formats."""
    print("\nMemory with 55 queues (target: flat, under 70 MiB)")
    with child("upstream", 55, 10) as url:
        async with polling(f"{url}/api", collect=SLOTS) as (poller, store, telemetry):
            done = 0
            for goal in (1, 100, 1_000):
                while done < goal:
                    await poller.poll(NAME)
                    done += 1
                    view = store.view()
                    for format_ in Format:
                        body = Body(view.live.values(), format_)
                        await body.gzipped(telemetry.render(view, format_))
                print(f"{goal:>7} polls {resident():>7.1f} MiB", flush=True)


NAMED: Final = (1_000, 100)
"""Queues, and holders in each, of the measurement of names."""


def holders() -> None:
    """What it costs to name holders, where there are very many: each variant in a process of its own."""
    queues, each = NAMED
    print(f"\nNames of holders, {queues} queues with {each} holders each")
    print("(targets: 5 % more seconds, 10 MiB more memory; no more requests once all are known)")
    print(f"{'named':>7} {'seconds':>8} {'MiB':>7} requests of each poll", flush=True)
    with child("upstream", queues, each) as url:
        port = url.rpartition(":")[2]
        for show in ("0", "1"):
            subprocess.run([sys.executable, "-m", "tests.measure.bench", "named", show, port], check=True)


async def named(show: int, port: int) -> None:
    """One variant: the least seconds of a poll, resident memory after the last one, and the requests of each."""
    url = f"http://127.0.0.1:{port}/api"
    async with polling(url, collect=SLOTS, timeout="10m", holders={"show": bool(show)}) as polled:
        poller, store, telemetry = polled
        seconds, requests = [], [0]
        for _ in range(4):
            begin = time.perf_counter()
            await poller.poll(NAME)
            seconds.append(time.perf_counter() - begin)
            requests.append(telemetry.requests(NAME))
        assert store.view().states[0].outcome == "success", store.view().states[0].failure
        each = " ".join(str(after - before) for before, after in pairwise(requests))
        print(f"{'yes' if show else 'no':>7} {min(seconds):>8.2f} {resident():>7.1f} {each}", flush=True)


async def prefect() -> None:
    """A real server with 510 queues and 5,000 runs: requests, seconds, and what a poll does to another client."""
    print("\nA real Prefect 3.9.1 with 510 queues and 5,000 runs, all parts collected")
    print("(targets: at most 56 requests, under 3 s; another client's median latency at most doubles)")
    with tempfile.TemporaryDirectory() as directory, PrefectServer(Path(directory) / "home") as server:
        seed(server, fleet(1))
        async with polling(server.api_url, timeout="2m") as (poller, store, telemetry):
            seconds, requests = [], [0]
            for _ in range(6):
                begin = time.perf_counter()
                await poller.poll(NAME)
                seconds.append(time.perf_counter() - begin)
                requests.append(telemetry.requests(NAME))
            assert store.view().states[0].outcome == "success", store.view().states[0]
            each = [after - before for before, after in pairwise(requests)]
            print(f"requests: {each[0]} at first, then {each[-1]}; seconds: {statistics.median(seconds):.2f}")
            idle = await latencies(server.api_url, asyncio.sleep(5))
            busy = await latencies(server.api_url, several(lambda: poller.poll(NAME), 3))
            print(
                f"another client: {idle * 1e3:.0f} ms idle, {busy * 1e3:.0f} ms during polls: {busy / idle:.2f} times"
            )


async def workers() -> None:
    """A real server with and without dead workers, which it never deletes: requests and seconds of a poll."""
    print("\nA real Prefect 3.9.1 with 9 pools, and dead workers (target: no more requests than without)")
    print(f"{'dead':>7} {'requests':>9} {'of workers':>11} {'seconds':>8}")
    for dead in (0, 5_000):
        plan = fleet(1, pools=9, queues=27, runs=200, limits=9)
        for number in range(dead):
            plan.add_worker(plan.pools[number % len(plan.pools)], f"dead-{number}", heartbeat=7_000 + number)
        with tempfile.TemporaryDirectory() as directory, PrefectServer(Path(directory) / "home") as server:
            seed(server, plan)
            sent: Counter[str] = Counter()
            async with polling(server.api_url, timeout="2m") as (poller, store, telemetry):
                await poller.poll(NAME)
                seconds = []
                sent.subtract(_sent(store, telemetry))
                for _ in range(5):
                    begin = time.perf_counter()
                    await poller.poll(NAME)
                    seconds.append(time.perf_counter() - begin)
                sent.update(_sent(store, telemetry))
                assert store.view().states[0].outcome == "success", store.view().states[0]
            of_workers = sent["/work_pools/{name}/workers/filter"]
            print(
                f"{dead:>7} {sent.total() / 5:>9.1f} {of_workers / 5:>11.1f} {statistics.median(seconds):>8.2f}",
                flush=True,
            )


def _sent(store: Store, telemetry: Telemetry) -> Counter[str]:
    """How many requests of each route were sent."""
    found = series(telemetry.render(store.view(), Format.CLASSIC).decode())
    sent: Counter[str] = Counter()
    for (name, labels), count in found.items():
        if name == "concurrency_exporter_upstream_requests_total":
            sent[dict(labels)["endpoint"]] += int(count)
    return sent


async def shards() -> None:
    """A real server that several exporters share: requests, seconds and series, of each and of all together."""
    print("\nA real Prefect 3.9.1 with 510 queues that N exporters share, all polling at the same time")
    print(
        f"{'runs':>7} {'holders':>8} {'N':>3} {'requests of each':>17} {'of all':>7}"
        f" {'seconds':>8} {'series of each':>15}"
    )
    for runs, mix in ((5_000, None), (30_000, {"Running": 1.0})):
        plan = fleet(1, runs=runs) if mix is None else fleet(1, runs=runs, mix=mix)
        with tempfile.TemporaryDirectory() as directory, PrefectServer(Path(directory) / "home") as server:
            seed(server, plan)
            holders = sum(run.state_type in HOLDING_STATES for run in plan.runs)
            for total in (1, 2, 4):
                async with AsyncExitStack() as stack:
                    sharing = [
                        await stack.enter_async_context(
                            polling(server.api_url, Shard(index, total), timeout="2m", interval="2m")
                        )
                        for index in range(total)
                    ]
                    await asyncio.gather(*(poller.poll(NAME) for poller, _, _ in sharing))
                    before = [telemetry.requests(NAME) for _, _, telemetry in sharing]
                    begin = time.perf_counter()
                    await asyncio.gather(*(poller.poll(NAME) for poller, _, _ in sharing))
                    seconds = time.perf_counter() - begin
                    states = [store.view().states[0] for _, store, _ in sharing]
                    assert {state.outcome for state in states} == {"success"}, states
                    each = [t.requests(NAME) - first for (_, _, t), first in zip(sharing, before, strict=True)]
                    series = [state.published.rendered.series for state in states if state.published]
                    print(
                        f"{runs:>7} {holders:>8} {total:>3} {_range(each):>17} {sum(each):>7} {seconds:>8.2f}"
                        f" {_range(series):>15}",
                        flush=True,
                    )


def _range(numbers: list[int]) -> str:
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)}-{max(numbers)}"


async def several(run: Callable[[], Awaitable[None]], times: int) -> None:
    """Run it one time after the other."""
    for _ in range(times):
        await run()


async def latencies(url: str, until: Awaitable[None]) -> float:
    """Median seconds of a small request that another client sends again and again `until` that has ended."""
    times = []
    ended = asyncio.ensure_future(until)
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        while not ended.done():
            begin = time.perf_counter()
            (await client.post("/flow_runs/filter", json={"limit": 1})).raise_for_status()
            times.append(time.perf_counter() - begin)
            await asyncio.sleep(0.02)
    await ended
    return statistics.median(times)


def start() -> None:
    """Seconds from the command to its first answer, the median of seven."""
    times = []
    for _ in range(7):
        port = free_port()
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}"],
            env={"PREFECT_API_URL": "http://127.0.0.1:9/api"},
            stderr=subprocess.DEVNULL,
        )
        try:
            listens = accepts(port)
            while not listens():
                pass
            times.append(time.perf_counter() - begin)
        finally:
            process.terminate()
            process.wait()
    print(f"\nStart to listening (target: under 1 s): {statistics.median(times):.2f} s")


def main() -> None:
    """All of the measurements, or one; `upstream`, `static` and `named` are processes that they need."""
    servers: dict[str, Callable[..., Any]] = {"upstream": run_upstream, "static": run_static, "named": named}
    measurements: dict[str, Callable[[], Any]] = {
        "start": start,
        "scrapes": scrapes,
        "api": api,
        "board": board,
        "polls": polls,
        "memory": memory,
        "holders": holders,
        "prefect": prefect,
        "workers": workers,
        "shards": shards,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=("all", *measurements, *servers))
    parser.add_argument("numbers", nargs="*", type=int)
    flags = parser.parse_args()
    if flags.what == "all":
        for name in measurements:
            # Each in a process of its own: the memory of 55 queues is not what polls of 1,000 have left behind.
            subprocess.run([sys.executable, "-m", "tests.measure.bench", name], check=True)
    elif flags.what in servers:
        asyncio.run(servers[flags.what](*flags.numbers))
    else:
        result = measurements[flags.what]()
        if asyncio.iscoroutine(result):
            asyncio.run(result)


if __name__ == "__main__":
    main()
