"""What strangers cost the running command, within the limits that the manifests ship, with a scraper beside them."""

import asyncio
import base64
import itertools
import re
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import httpx
import pytest

from exporter.web.connection import LIMITS
from tests.harness.certificates import authority, certificate
from tests.harness.cgroup import Group, memory
from tests.harness.exporter import exporter
from tests.harness.process import PATIENCE, Process, accepts, free_port, running
from tests.harness.programs import ROOT, program
from tests.measure.soak import child

pytestmark = pytest.mark.timeout(600)

AUTH = ("prometheus", "secret")
BASIC = b"Authorization: Basic " + base64.b64encode(":".join(AUTH).encode()) + b"\r\n"
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
SCRAPER = "127.0.0.2"
"""Where the scraper comes from."""


def shipped_limit() -> int:
    """Bytes of memory that the exporter has by the manifests, which agree on it."""
    found = {
        re.search(pattern, (ROOT / "deploy" / file).read_text())[1]  # type: ignore[index]
        for file, pattern in {
            "systemd/concurrency-exporter.service": r"MemoryMax=(\d+)M",
            "compose/compose.yaml": r"mem_limit: (\d+)m",
            "kubernetes/base/deployment.yaml": r"limits:\s+memory: (\d+)Mi",
        }.items()
    }
    (mib,) = found
    return int(mib) * 1024 * 1024


@dataclass(frozen=True)
class Served:
    """The command in a group of its own, behind TLS and a password."""

    port: int
    process: Process
    group: Group
    tls: ssl.SSLContext

    async def open(self, tls: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=tls, limit=1024)

    async def scrape(self) -> bytes:
        """One scrape on a connection of its own, from another address than the strangers'."""
        transport = httpx.AsyncHTTPTransport(verify=self.tls, local_address=SCRAPER)
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=PATIENCE) as client:
            answer = await client.get(f"https://127.0.0.1:{self.port}/metrics", auth=AUTH)
        assert answer.status_code == 200
        return answer.content


@contextmanager
def served(folder: Path, queues: int) -> Iterator[Served]:
    """It polls so many queues of 10 holders each, without a pause: whatever strangers do, they do it during a poll."""
    trusted = authority(folder)
    cert, key = certificate(folder, "server")
    hashed = bcrypt.hashpw(AUTH[1].encode(), bcrypt.gensalt(4)).decode()
    (folder / "web.yml").write_text(
        f"tls_server_config: {{cert_file: {cert}, key_file: {key}}}\nbasic_auth_users: {{{AUTH[0]}: '{hashed}'}}\n"
    )
    with memory(shipped_limit()) as group, child("upstream", queues, 10) as upstream:
        (folder / "config.yml").write_text(
            f"sources: [{{name: p, system: prefect, url: '{upstream}/api', interval: 1s, timeout: 5m,"
            " stale_after: 10m, max_series: 100000, collect: [queues, pools]}]"
        )
        port = free_port()
        flags = (f"--web.listen-address=127.0.0.1:{port}", "--config.file=config.yml", "--web.config.file=web.yml")
        process = Process(
            [*group.command, sys.executable, "-m", "exporter", *flags], log=folder / "exporter.log", cwd=folder
        )
        try:
            process.wait_until(accepts(port), what="it listens")
            yield Served(port, process, group, ssl.create_default_context(cafile=trusted))
        finally:
            process.stop()


@asynccontextmanager
async def strangers(at: Served, count: int, said: Sequence[bytes]) -> AsyncIterator[None]:
    """So many connections that say one of these each, and then neither read nor end."""

    async def one(said: bytes) -> asyncio.StreamWriter | None:
        try:
            _, writer = await at.open(None if said in HELLOS else at.tls)
        except (OSError, asyncio.IncompleteReadError):
            return None  # it gave way in its handshake
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        writer.write(said)
        return writer

    opened: list[asyncio.StreamWriter] = []
    turns = itertools.cycle(said)
    for _ in range(0, count, 50):
        opened += [writer for writer in await asyncio.gather(*(one(next(turns)) for _ in range(50))) if writer]
    try:
        yield
    finally:
        for writer in opened:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in opened), return_exceptions=True)


HELLOS = (b"\x16\x03\x01\x02\x00\x01\x01\xff\x00" + b"x" * 400,)
"""The first record of a handshake. It says that all of it are 130,816 bytes, for which OpenSSL has room at once."""
SCRAPE = GET + BASIC + b"\r\n"
OPENMETRICS = b"Accept: application/openmetrics-text\r\n"
SAID = {
    "nothing": (b"",),
    "half-a-hello": HELLOS,
    "half-a-head": (GET + b"X: " + b"x" * 15_000,),
    "bodies": (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500_000,),
    "scrapes-of-no-user": ((GET + b"Authorization: Basic eDp4\r\n\r\n") * 100,),
    "scrapes": (SCRAPE,),
    "scrapes-of-each-kind": tuple(
        GET.replace(b" HTTP", query + b" HTTP") + accept + encoding + BASIC + b"\r\n"
        for query in (b"", b"?source=p")
        for accept in (b"", OPENMETRICS)
        for encoding in (b"", b"Accept-Encoding: gzip\r\n")
    ),
    "many-scrapes": (SCRAPE * 2_000,),
    "pages": (SCRAPE.replace(b"/metrics", b"/") * 10,),
}
"""What each stranger of a kind says; those of a kind take turns."""
AGAIN = ("half-a-head", "bodies", "scrapes-of-each-kind", "many-scrapes")
"""Those that cost the most: a handshake and what we are sent, what we make, what we send."""
MOST = 224 * 1024 * 1024
"""Bytes, of the 256 MiB that are shipped."""


async def test_memory_is_bounded_by_the_limit_that_is_shipped(tmp_path: Path) -> None:
    """5 MB of metrics, and each kind of stranger, more of each than are served; the dearest of them twice.

    A scraper scrapes all the time, and gets each answer whole.
    """
    with served(tmp_path, 1_800) as at:
        while len(await at.scrape()) < 5_000_000:  # noqa: ASYNC110  until it was polled
            await asyncio.sleep(0.5)
        most: dict[str, int] = {}
        scrapes = 0

        async def scrape_all_the_time() -> None:
            nonlocal scrapes
            while True:
                await at.scrape()
                scrapes += 1

        async def besiege(kind: str, said: Sequence[bytes]) -> None:
            async with strangers(at, LIMITS.connections + 50, said):
                # The one that has begun already, and one that begins among them.
                until = scrapes + 2
                while scrapes < until:  # noqa: ASYNC110  they count
                    await asyncio.sleep(0.1)
            most[kind] = at.group.most // 1024 // 1024
            assert at.process.exit_code is None, most
            assert at.group.killed == 0, most

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            scraper = group.create_task(scrape_all_the_time())
            for kind, said in SAID.items():
                await besiege(kind, said)
            for kind in AGAIN:
                await besiege(f"{kind}, again", SAID[kind])
            scraper.cancel()
        assert at.group.most < MOST, most
    assert at.process.exit_code == 0


MODES = {
    "slow-headers": ("-H",),
    "slow-bodies": ("-B", "-s", "100000"),
    "ranges": ("-R",),
    "slow-readers": ("-X", "-k", "5", "-w", "10", "-y", "20", "-z", "5", "-n", "1"),
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
async def test_slowhttptest_keeps_no_scraper_from_being_served(tmp_path: Path, mode: tuple[str, ...]) -> None:
    """More clients than are served, on connections of theirs, while each scrape takes a new one."""
    with exporter(tmp_path / "exporter", "--demo") as running:
        url = f"{running.url}/metrics"
        with (tmp_path / "slowhttptest.log").open("wb") as log:
            attack = await asyncio.create_subprocess_exec(
                program("slowhttptest"), *mode, "-u", url, "-c", "500", "-r", "500", "-i", "1", "-l", "5", stdout=log
            )
            scrapes = 0
            try:
                while attack.returncode is None or not scrapes:
                    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
                        answer = await client.get(url)
                    assert answer.status_code == 200
                    assert "concurrency_exporter_build_info" in answer.text
                    scrapes += 1
                    await asyncio.sleep(0.1)
            finally:
                if attack.returncode is None:
                    attack.kill()
                await attack.wait()
        assert "TEST ENDED" in re.sub(r"\x1b\[[0-9;]*m", "", (tmp_path / "slowhttptest.log").read_text()).upper()
        assert running.process.exit_code is None


@contextmanager
def guarded(folder: Path, port: int) -> Iterator[Process]:
    """The command on this port, behind a password whose check takes some 20 ms."""
    hashed = bcrypt.hashpw(AUTH[1].encode(), bcrypt.gensalt(8)).decode()
    (folder / "web.yml").write_text(f"basic_auth_users: {{{AUTH[0]}: '{hashed}', other: '{hashed}'}}\n")
    flags = ("--demo", f"--web.listen-address=127.0.0.1:{port}", f"--web.config.file={folder / 'web.yml'}")
    with running([sys.executable, "-m", "exporter", *flags], log=folder / "exporter.log") as process:
        process.wait_until(accepts(port), what="it listens")
        yield process


def client(address: str) -> httpx.AsyncClient:
    """One that comes from this address of loopback."""
    transport = httpx.AsyncHTTPTransport(local_address=address, verify=False)
    return httpx.AsyncClient(transport=transport, trust_env=False, timeout=PATIENCE)


WHO: dict[str, Callable[[int], tuple[str, str]]] = {
    "of-one-address": lambda number: ("127.0.0.1", AUTH[0]),  # noqa: ARG005
    "of-an-address-each": lambda number: (f"127.0.1.{number + 1}", AUTH[0]),
    "behind-the-same-proxy": lambda number: (SCRAPER, ("other", f"nobody {number}")[number % 2]),
}
"""Address and user name of each stranger."""


@pytest.mark.parametrize(("who", "count"), [(who, 60 if who == "of-one-address" else 100) for who in WHO])
async def test_wrong_passwords_keep_no_scraper_out_nor_after_a_restart(tmp_path: Path, who: str, count: int) -> None:
    """It is let in at its first try, after a few checks of theirs, although they never pause."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    answered: Counter[int] = Counter()

    async def stranger(number: int) -> None:
        address, name = WHO[who](number)
        async with client(address) as strange:
            for attempt in itertools.count():
                try:
                    answer = await strange.get(url, auth=(name, f"wrong {number} {attempt}"))
                except httpx.TransportError:
                    await asyncio.sleep(0.05)  # it is being restarted
                else:
                    answered[answer.status_code] += 1

    async def scrape() -> int:
        """Scrape on a new connection, and return how many wrong passwords were answered meanwhile."""
        before = answered.total()
        async with client(SCRAPER) as scraper:
            answer = await scraper.get(url, auth=AUTH)
        assert answer.status_code == 200
        return answered.total() - before

    async def so_many_are_answered() -> None:
        until = answered.total() + count
        async with asyncio.timeout(PATIENCE):
            while answered.total() < until:  # noqa: ASYNC110  they count
                await asyncio.sleep(0.05)

    async with AsyncExitStack() as flood:
        with guarded(tmp_path, port):
            for number in range(count):
                task = asyncio.create_task(stranger(number))
                flood.callback(task.cancel)
            await so_many_are_answered()
            assert await scrape() < count / 2
            async with client(SCRAPER) as probe:
                assert (await probe.get(f"http://127.0.0.1:{port}/-/healthy")).status_code == 401
        with guarded(tmp_path, port):
            # Some may not have tried since the restart; each of those may come first, once.
            assert await scrape() < 2 * count
            await so_many_are_answered()
            assert await scrape() < count / 2
    assert set(answered) == {401}
