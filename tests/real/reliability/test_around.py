"""Faults of what is around the exporter: real Prefect servers and their databases, its process, its machine, its clock.

Each has an exporter of its own; those that only wait run at the same time.
"""

import json
import os
import re
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.harness.cloro import PUBLISHED
from tests.harness.exporter import Exporter, exporter
from tests.harness.postgres import PostgresCluster, sql_session
from tests.harness.prefect import PrefectApi, PrefectServer, StartPrefect
from tests.harness.process import PATIENCE
from tests.harness.programs import faketime
from tests.harness.prometheus import StartPrometheus
from tests.harness.reliability import Row, Scrape, Table
from tests.harness.resolver import NAME, Resolver
from tests.harness.upstream import Hangup, Request, answer, serving

INTERVAL: Final = 1
STALE_AFTER: Final = 4
DOWN: Final = 10
"""Intervals that an outage lasts."""
PATIENT: Final = {"timeout": f"{PATIENCE}s", "stale_after": f"{2 * PATIENCE}s"}
"""Of a source whose polls all end and whose data never expires, however slow the machine is."""
LOOKS_BACK: Final = 300
"""Seconds for which Prometheus shows a series that only does not come any more."""
OLD: Final = "old data, then none"
FRESH: Final = "fresh data"


POOL: Final = {
    "id": "00000000-0000-4000-8000-000000000008", "name": "a", "type": "process", "is_paused": False,
    "concurrency_limit": 9, "active_slots": 1,
}  # fmt: skip
BOTH: Final = ("s", "t")
"""A source of each system, of one upstream that answers as both."""


def good(request: Request) -> bytes:
    return answer([POOL]) if request.method == "POST" else answer(PUBLISHED)


def both(url: str, **more: object) -> tuple[dict[str, object], ...]:
    other: dict[str, object] = {"system": "prefect", "url": f"{url}/api", "collect": ["pools"]}
    return cloro("s", url, **more), cloro("t", url, **more) | other


def cloro(name: str, url: str, **more: object) -> dict[str, object]:
    times: dict[str, object] = {"interval": "1s", "timeout": "3s", "stale_after": "4s"}
    return {"name": name, "system": "cloro", "url": url, "authorization": {"credentials": "key"}} | times | more


def prefect(server: PrefectServer) -> dict[str, object]:
    times: dict[str, object] = {"interval": "2s", "timeout": "6s", "stale_after": "8s"}
    return {"name": "s", "system": "prefect", "url": server.api_url} | times


@dataclass
class Watched:
    """An exporter with a source called `s`, and all that was read of its metrics."""

    exporter: Exporter
    interval: int = INTERVAL
    stale_after: int = STALE_AFTER
    source: str = "s"
    scrapes: list[Scrape] = field(default_factory=list)

    def scrape(self) -> Scrape:
        asked, text = time.time(), self.exporter.get().text
        self.scrapes.append(Scrape(asked, time.time(), text))
        return self.scrapes[-1]

    def until(self, condition: Callable[[Scrape], bool], what: str) -> Scrape:
        """The first scrape of which something holds; `AssertionError` where it never does."""
        deadline = time.monotonic() + PATIENCE
        while not condition(found := self.scrape()):
            assert time.monotonic() < deadline, f"never: {what}\n{self.exporter.process.log_text()}"
            time.sleep(0.2)
        return found

    def faults(self, scrape: Scrape) -> int:
        """How many polls have failed but for their deadline, which a slow machine may miss."""
        return scrape.outcomes[self.source, "failure"] - scrape.reasons[self.source, "timeout"]

    def outage(self, begin: Callable[[], object], end: Callable[[], object], reason: str, intervals: int = 6) -> int:
        """The requests that are sent in the first so many intervals of an outage, which is told by this reason.

        Checks that it was told by the first poll after its beginning and its end, and that old data was there until it
        had expired, and not after.
        """
        name = self.source
        before = self.until(lambda now: now.up[name] == 1, "it works")
        begin()
        began = self.scrape()
        noticed = self.until(lambda now: now.reasons[name, reason] > before.reasons[name, reason], "noticed")
        first = began.at + intervals * self.interval
        last = self.until(lambda now: now.at > first and not now.observed[name], "down, and nothing is left")
        end()
        ended = self.scrape()
        self.until(lambda now: now.up[name] == 1, "recovered")
        for scrape in self.scrapes[self.scrapes.index(began) :]:
            least, most = (at - scrape.last_success[name] for at in (scrape.asked, scrape.at))
            if most < self.stale_after - 1:
                assert scrape.observed[name] > 0
            if least > self.stale_after + 1:
                assert scrape.observed[name] == 0
        assert last.outcomes[name, "success"] - began.outcomes[name, "success"] <= 1
        assert self.faults(self.scrapes[-1]) - self.faults(ended) <= 2
        reasons = {key[1] for key, times in last.reasons.items() if key[0] == name and times > before.reasons[key]}
        assert reasons <= {reason, "timeout"}
        counted = [scrape.requests[name] for scrape in self.scrapes if noticed.at <= scrape.at <= first]
        return counted[-1] - counted[0] + 1 if counted else 0


@contextmanager
def watched(folder: Path, *sources: Mapping[str, object], env: Mapping[str, str] | None = None) -> Iterator[Watched]:
    folder.mkdir(parents=True)
    config = folder / "exporter.yml"
    config.write_text(json.dumps({"sources": sources}))
    with exporter(folder, f"--config.file={config}", "--log.level=debug", env=env) as running:
        yield Watched(running)


# --- What runs at the same time, with a fake upstream.


def stepped(step: str) -> Callable[[Path], Row]:
    """The wall clock is set, once while all is well and once while upstream fails."""

    def fault(folder: Path) -> Row:
        folder.mkdir()
        offset = folder / "offset"
        offset.write_text("+0\n")
        env = os.environ | faketime(offset)
        lives = 8  # seconds: longer than it takes until upstream fails and the clock is set back
        more = {"stale_after": f"{lives}s"}
        with serving(good) as upstream, watched(folder / "exporter", *both(upstream.url, **more), env=env) as seen:
            seen.until(lambda now: all(now.outcomes[name, "success"] >= 2 for name in BOTH), "it works")
            offset.write_text(f"{step}\n")
            before = seen.scrape()
            wanted = {name: before.outcomes[name, "success"] + 5 for name in BOTH}
            seen.until(lambda now: all(now.outcomes[name, "success"] >= wanted[name] for name in BOTH), "keeps pace")
            assert seen.scrapes[-1].at - before.asked > 2 * INTERVAL, "missed polls are not made up"
            (line,) = [one for one in seen.exporter.process.log_text().splitlines() if "the wall clock was set" in one]
            (jump,) = re.findall(r"step_seconds=(\S+)", line)
            for name in BOTH:
                assert before.asked - 1 < seen.scrapes[-1].last_success[name] - float(jump) < seen.scrapes[-1].at + 1

            upstream.answer = lambda _: answer({}, 500)
            seen.until(lambda now: not any(now.up[name] for name in BOTH), "noticed")
            offset.write_text("+0\n")
            back = len(seen.scrapes)
            seen.until(lambda now: not any(now.observed[name] for name in BOTH), "expired")
            for scrape in seen.scrapes[back:]:
                for name in BOTH:
                    least, most = (at + float(jump) - scrape.last_success[name] for at in (scrape.asked, scrape.at))
                    if most < lives - 1:
                        assert scrape.observed[name] > 0, "not by the wall clock"
                    if least > lives + 1:
                        assert scrape.observed[name] == 0, "by the monotonic clock"
        return Row("", "machine", "success", "", FRESH, "", "", f"≤ {DOWN + 1}")

    return fault


def token_rotated(folder: Path) -> Row:
    """Of both systems. Upstream changes its mind first, the file follows."""
    folder.mkdir()
    token = folder / "token"
    token.write_text("old\n")
    wanted = "old"

    def guarded(request: Request) -> bytes:
        if request.headers["authorization"] != f"Bearer {wanted}":
            return answer({}, 401)
        return good(request)

    credentials = {"authorization": {"credentials_file": str(token)}}
    with serving(guarded) as upstream, watched(folder / "exporter", *both(upstream.url, **credentials)) as seen:

        def change() -> None:
            nonlocal wanted
            wanted = "new"

        assert seen.outage(change, lambda: token.write_text("new\n"), "auth", DOWN) <= 7
        seen.until(lambda now: now.up["t"] == 1, "the other recovered, too")
        assert seen.scrapes[-1].reasons["t", "auth"] > 0
        assert "old" not in seen.exporter.process.log_text()
    return Row("", "both", "failure", "`auth`", OLD, "next poll", "next poll", "≤ 7")


def logs_go(where: str) -> Callable[[Path], Row]:
    """Nothing that is logged can be written."""

    def fault(folder: Path) -> Row:
        folder.mkdir()
        with serving(good) as upstream:
            config = folder / "exporter.yml"
            config.write_text(json.dumps({"sources": [cloro("s", upstream.url)]}))
            # Python would keep nothing that it could not write, and forget that it could not.
            command = ["env", "--unset=PYTHONUNBUFFERED", "bash", "-c", f'exec "$@" {where}', "bash"]
            with exporter(folder, f"--config.file={config}", "--log.level=debug", inside=command) as running:
                seen = Watched(running)
                started = seen.until(lambda now: now.up["s"] == 1, "it works")
                upstream.answer = lambda _: answer({}, 500)
                seen.until(lambda now: now.up["s"] == 0, "it logs")
                upstream.answer = good
                seen.until(lambda now: now.up["s"] == 1, "it works again")
                assert running.process.log_text() == ""
                assert _bytes(seen.scrapes[-1]) < _bytes(started) + 8 * 1024**2
                running.process.send_signal(signal.SIGTERM)
                assert running.process.wait_for_exit() == 0
        return Row("", "machine", "success", "", FRESH, "", "", f"≤ {DOWN + 1}")

    return fault


def _bytes(scrape: Scrape) -> float:
    found = re.search(r"^process_resident_memory_bytes (\S+)", scrape.text, re.MULTILINE)
    assert found
    return float(found[1])


def out_of_descriptors(folder: Path) -> Row:
    """A scrape over a connection that is open still works; new ones wait until there are descriptors again."""
    with serving(good) as upstream, watched(folder, *both(upstream.url, **PATIENT)) as seen:
        seen.until(lambda now: all(now.up[name] for name in BOTH), "they work")
        pid = seen.exporter.process.pid
        with httpx.Client(base_url=seen.exporter.url, trust_env=False, timeout=PATIENCE) as client:

            def up() -> set[str]:
                seen = Scrape(0, 0, client.get("/metrics").raise_for_status().text)
                return {name for name in BOTH if seen.up[name]}

            assert up() == set(BOTH)
            old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, old[1]))
            upstream.answer = hang_up  # so that it needs another connection
            deadline = time.monotonic() + PATIENCE
            while up():
                assert time.monotonic() < deadline
                time.sleep(0.2)
            upstream.answer = good
            with pytest.raises(httpx.TimeoutException):
                httpx.get(f"{seen.exporter.url}/metrics", trust_env=False, timeout=1)
            assert up() == set()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
        seen.until(lambda now: all(now.up[name] for name in BOTH), "recovered")
        log = seen.exporter.process.log_text()
        assert "Too many open files" in log
        assert len([line for line in log.splitlines() if not re.search("poll (failed|skipped)", line)]) < 60
        assert "Traceback" not in log
        assert {key for key, times in seen.scrapes[-1].reasons.items() if times} == {(name, "connect") for name in BOTH}
    return Row("", "machine", "failure", "`connect`", f"{OLD}; no new connections", "next poll", "next poll", "≤ 7")


def hang_up(_: Request) -> bytes:
    raise Hangup


def resolver_hangs(folder: Path) -> Row:
    """More sources than asyncio has threads. They delay no other, no scrape, and not the end of the process."""
    resolver = Resolver(folder / "python")
    with serving(good) as upstream, serving(good) as other:
        url = f"http://{NAME}:{upstream.port}"
        named = [cloro("s", url), *(cloro(f"named-{number}", url) for number in range(9))]
        env = os.environ | resolver.env
        with watched(folder / "exporter", cloro("other", other.url, **PATIENT), *named, env=env) as seen:

            def hang() -> None:
                resolver.do("hangs")
                upstream.answer = hang_up  # so that it needs another connection

            def work() -> None:
                upstream.answer = good
                resolver.do("works")

            assert seen.outage(hang, work, "timeout", DOWN) <= 7
            last = seen.scrapes[-1]
            assert last.outcomes["other", "failure"] == 0
            polls = last.outcomes["s", "success"] + last.outcomes["s", "failure"]
            assert last.outcomes["other", "success"] > polls, "the other keeps its pace"
            hang()
            seen.until(lambda now: now.up["s"] == 0, "it hangs again")
            seen.exporter.process.send_signal(signal.SIGTERM)
            assert seen.exporter.process.wait_for_exit() == 0, "while the look-ups hang for ever"
    return Row("", "machine", "failure", "`timeout`", OLD, "next poll, after its `timeout`", "next poll", "≤ 7")


def exporter_stopped(folder: Path) -> Row:
    """For longer than the data is good: what it serves first when it goes on is nothing old, and then fresh data."""
    with serving(good) as upstream, watched(folder, cloro("s", upstream.url)) as seen:
        before = seen.until(lambda now: now.outcomes["s", "success"] >= 2, "it works")
        seen.exporter.process.send_signal(signal.SIGSTOP)
        stopped, sent = time.time(), len(upstream.requests)
        time.sleep(STALE_AFTER + 1)
        assert len(upstream.requests) <= sent + 1, "only one that was under way comes"
        continued = time.time()
        seen.exporter.process.send_signal(signal.SIGCONT)
        found = seen.scrape()
        assert found.observed["s"] == 0 or found.asked - found.last_success["s"] < STALE_AFTER
        seen.until(lambda now: now.outcomes["s", "success"] > before.outcomes["s", "success"] + 1, "it goes on")
        time.sleep(INTERVAL)
        polls = seen.scrape().outcomes["s", "success"] - before.outcomes["s", "success"]
        ran = stopped - before.asked + seen.scrapes[-1].at - continued
        # One may have been under way when it was stopped, and one is due at once.
        assert polls <= ran / (0.9 * INTERVAL) + 2, "missed polls are not made up"
    return Row("", "exporter", "success", "", "no old data", "", "next poll", "0")


AT_ONCE: Final[Mapping[str, Callable[[Path], Row]]] = {
    "token replaced on the server, then in its file": token_rotated,
    "wall clock set back by an hour": stepped("-1h"),
    "wall clock set forward by an hour": stepped("+1h"),
    "wall clock set forward by 50 years": stepped("+50y"),
    "disk of the log full": logs_go(">/dev/full 2>&1"),
    "log pipe closed by its reader": logs_go("> >(true) 2>&1"),
    "no file descriptors left": out_of_descriptors,
    "DNS resolver hangs": resolver_hangs,
    "exporter stopped and continued": exporter_stopped,
}


# --- Real Prefect servers.

SQLITE: Final = (
    "CSRF token of a Prefect server expired",
    "SQLite of a Prefect server locked",
    "Prefect server stopped and continued",
    "Prefect server killed and started again",
)
HANGS: Final = Row("", "prefect", "failure", "`timeout`", OLD, "next poll, after its `timeout`", "next poll", "≤ 7")
POSTGRES: Final = "PostgreSQL of a Prefect server locked"


def on_sqlite(server: PrefectServer, start_prometheus: StartPrometheus, folder: Path) -> Iterator[tuple[str, Row]]:
    csrf, locked, stopped, killed = SQLITE
    with closing(server.client()) as client:
        PrefectApi(client).create_pool("a", limit=3)
    with watched(folder, prefect(server)) as seen:
        seen.interval, seen.stale_after = 2, 8
        prometheus = start_prometheus([seen.exporter.address])
        tokens = re.compile(r'code="200",endpoint="/csrf-token",source="s",system="prefect"} ([3-9]|\d\d)')
        seen.until(lambda now: tokens.search(now.text) is not None, "expires")
        assert seen.faults(seen.scrapes[-1]) == 0
        yield csrf, Row("", "prefect", "success", "", FRESH, "", "", "2 more in a poll")

        with closing(sqlite3.connect(server.database, timeout=PATIENCE, isolation_level=None)) as database:
            requests = seen.outage(
                lambda: database.execute("BEGIN EXCLUSIVE"), lambda: database.execute("ROLLBACK"), "timeout"
            )
        # For the pools, which tells that the token has expired, and for another token, which would have to be written.
        assert requests <= 14
        yield locked, replace(HANGS, requests="≤ 14")

        process = server.process
        requests = seen.outage(
            lambda: process.send_signal(signal.SIGSTOP), lambda: process.send_signal(signal.SIGCONT), "timeout"
        )
        assert requests <= 7
        yield stopped, HANGS

        prometheus.wait_for('concurrency_pool_slot_limit{source="s"}')
        killed_at: list[float] = []
        started: list[float] = []

        def kill() -> None:
            process.send_signal(signal.SIGKILL)
            process.wait_for_exit()
            killed_at.append(time.time())

        def start() -> None:
            prometheus.wait_for('absent(concurrency_pool_slot_limit{source="s"})', timeout=LOOKS_BACK / 2)
            started.append(time.time())
            server.__enter__()
            # Its first answers take seconds on a busy machine.
            with closing(server.client()) as client:
                PrefectApi(client).request("POST", "/work_pools/filter", {})

        assert seen.outage(kill, start, "connect") <= 7
        last = max(at for at, _ in prometheus.samples('concurrency_pool_slot_limit{source="s"}[1h]') if at < started[0])
        assert last < killed_at[0] + seen.stale_after + 1
        down = [at for at, up in prometheus.samples('concurrency_exporter_source_up{source="s"}[1h]') if not up]
        assert any(killed_at[0] < at < started[0] for at in down)
        yield killed, Row("", "prefect", "failure", "`connect`", OLD, "next poll", "next poll", "≤ 7")


def on_postgres(server: PrefectServer, folder: Path) -> Row:
    with closing(server.client()) as client:
        PrefectApi(client).create_pool("a", limit=3)
    assert server.database_url
    with watched(folder, prefect(server)) as seen, sql_session(server.database_url) as execute:
        seen.interval, seen.stale_after = 2, 8
        requests = seen.outage(
            lambda: execute("BEGIN; LOCK TABLE work_pool IN ACCESS EXCLUSIVE MODE;"),
            lambda: execute("ROLLBACK;"),
            "timeout",
        )
        assert requests <= 7
    return HANGS


# --- The rows of the document.

ROWS: Final = [*AT_ONCE, *SQLITE, POSTGRES]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    table = Table("faults around", ROWS, update=request.config.getoption("--update-reliability"))
    yield table
    table.write()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Row]]]:
    folder = tmp_path_factory.mktemp("around")
    with ThreadPoolExecutor(4) as pool:
        yield {what: pool.submit(AT_ONCE[what], folder / str(number)) for number, what in enumerate(AT_ONCE)}


def test_the_document_has_all_faults_and_no_others() -> None:
    assert Table("faults around", ROWS, update=False).faults == ROWS


@pytest.mark.parametrize("what", AT_ONCE)
def test_a_fault_around(rows: dict[str, Future[Row]], table: Table, what: str) -> None:
    table.check(replace(rows[what].result(), fault=what))


def test_a_prefect_server_fails(
    start_prefect: StartPrefect,
    postgres: PostgresCluster,
    start_prometheus: StartPrometheus,
    tmp_path: Path,
    table: Table,
) -> None:
    with ThreadPoolExecutor() as pool:
        other = pool.submit(lambda: on_postgres(start_prefect(postgres=postgres), tmp_path / "postgres"))
        server = start_prefect(csrf=True, settings={"PREFECT_SERVER_CSRF_TOKEN_EXPIRATION": "PT2S"})
        for what, row in on_sqlite(server, start_prometheus, tmp_path / "sqlite"):
            table.check(replace(row, fault=what))
        table.check(replace(other.result(), fault=POSTGRES))
