"""A reload: what changed is swapped at once, what did not goes on, and nobody who scrapes meanwhile sees a gap."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest

from exporter.config import Config
from exporter.metrics.text import Format
from exporter.model import Snapshot
from exporter.reload import Reloader
from exporter.shard import Shard
from exporter.sources.base import CountRequest, Source, SourceError
from exporter.sources.cloro import CloroConfig
from exporter.sources.prefect import PrefectConfig
from tests.harness.certificates import authority
from tests.harness.command import cloro, environment, prefect, upstream_answer
from tests.harness.exporter import Exporter as Command
from tests.harness.exporter import Series, exporter
from tests.harness.inprocess import Exporter, Time, of_cloro
from tests.harness.lookalike import BROKEN, COUNT, HISTORY, small
from tests.harness.loop import until
from tests.harness.process import PATIENCE, running
from tests.harness.programs import ROOT
from tests.harness.upstream import Request, answer, never, serve, serving

SLOTS = "concurrency_queue_active_slots"
POLLS = "concurrency_exporter_polls_total"


class Served(Exporter):
    """An exporter that polls by its schedule, and what it publishes."""

    def slots(self) -> dict[str, float]:
        """The active slots of each source that has data."""
        found = {}
        for state in self.store.view().states:
            if state.published:
                (queue,) = state.published.snapshot.queues
                found[state.name] = queue.active_slots or 0.0
        return found

    def polls(self, source: str, outcome: str = "success") -> float:
        return self.own("polls_total", source, outcome=outcome) or 0.0


@asynccontextmanager
async def polling(*sources: CloroConfig) -> AsyncIterator[Served]:
    async with Served(*sources, time=Time.running()) as served:
        served.poller.start()
        yield served


def with_slots(used: int) -> Callable[[Request], bytes]:
    return lambda _: answer({"queuedTasks": 0, "processingTasks": 0, "concurrency": {"used": used, "max": 9}})


# --- A source whose settings changed.


@pytest.mark.parametrize(
    "settings",
    [{"interval": "7s"}, {"timeout": "1s"}, {"max_series": 50}, {"stale_after": "30s"}, {"tls_config": {}}],
    ids=lambda settings: next(iter(settings)),
)
async def test_other_settings_leave_the_data_until_the_first_poll_with_them(settings: dict[str, object]) -> None:
    async with serve(with_slots(2)) as upstream:
        async with polling(of_cloro("a", upstream, interval="5s")) as served:
            await until(lambda: served.slots() == {"a": 2})
            upstream.answer = never
            await served.poller.configure([of_cloro("a", upstream, **{"interval": "5s", **settings})])
            assert served.slots() == {"a": 2}
            assert [state.up for state in served.store.view().states] == [True]
            assert served.polls("a") == 1, "its counters go on"
            if "tls_config" in settings:
                return  # as before: nothing changed
            await until(lambda: len(upstream.requests) == 2)
            upstream.answer = with_slots(3)


@pytest.mark.parametrize("change", ["url", "key"])
async def test_another_upstream_never_shows_the_data_of_the_old(change: str) -> None:
    async with serve(with_slots(2)) as old, serve(never) as hanging:
        async with polling(of_cloro("a", old, interval="5s")) as served:
            await until(lambda: served.slots() == {"a": 2})
            if change == "url":
                changed = of_cloro("a", hanging, interval="5s")
            else:
                old.answer = never
                changed = of_cloro("a", old, interval="5s", authorization={"credentials": "another organization's"})
            await served.poller.configure([changed])
            assert served.slots() == {}
            assert [(state.name, state.up, state.outcome) for state in served.store.view().states] == [
                ("a", False, None)
            ]
            assert served.polls("a") == 0


async def test_old_data_expires_by_the_new_settings() -> None:
    async with serve(with_slots(2)) as upstream:
        async with polling(of_cloro("a", upstream, interval="100ms", stale_after="1h")) as served:
            await until(lambda: served.slots() == {"a": 2})
            upstream.answer = never
            await served.poller.configure([of_cloro("a", upstream, interval="100ms", stale_after="200ms")])
            await until(lambda: served.slots() == {})  # not in an hour


async def test_it_is_polled_at_once_even_if_its_poll_was_running() -> None:
    """A job of the same name would be skipped while the cancelled one ends, and the next be an interval away."""
    async with serve(never) as upstream:
        async with polling(of_cloro("a", upstream, interval="1h")) as served:
            for number in range(1, 30):
                await until(lambda number=number: len(upstream.requests) == number)  # type: ignore[misc]
                await served.poller.configure([of_cloro("a", upstream, interval="1h", max_series=number)])
            upstream.answer = with_slots(2)
            await served.poller.configure([of_cloro("a", upstream, interval="1h")])
            await until(lambda: served.slots() == {"a": 2})
            assert served.polls("a", "skipped") == 0


async def test_a_poll_of_the_old_settings_leaves_nothing_behind() -> None:
    """Whenever the answer comes: a reload at each step of the loop around it."""
    for steps in range(0, 60, 3):
        released = asyncio.Event()

        async def late(_: Request, released: asyncio.Event = released) -> bytes:
            await released.wait()
            return with_slots(2)(_)

        async with serve(late) as old, serve(with_slots(5)) as new:
            async with polling(of_cloro("a", old, interval="1h")) as served:
                await until(lambda old=old: bool(old.requests))  # type: ignore[misc]
                released.set()
                for _ in range(steps):
                    await asyncio.sleep(0)
                await served.poller.configure([of_cloro("a", new, interval="1h")])
                assert served.slots() == {}
                await until(lambda served=served: served.slots() == {"a": 5})  # type: ignore[misc]
                assert served.polls("a") == 1


@pytest.mark.parametrize("change", ["url", "removed"])
async def test_a_poll_that_is_cancelled_while_a_part_of_it_fails_goes_no_further(
    change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One request fails, so that another is cancelled, which takes some steps of the loop: a reload at each of them."""
    failing = asyncio.Event()
    asked: list[Request] = []

    async def broken(request: Request) -> bytes:
        asked.append(request)
        if len(asked) > 1:
            return await never(request)
        await failing.wait()
        return BROKEN

    fake = small(faults={COUNT: answer(10**6), HISTORY: broken})
    async with serve(fake) as old, serve(never) as new, polling() as served:
        for steps in range(50):
            asked.clear()
            failing.clear()
            before = PrefectConfig.model_validate({**prefect(old.url, "a", "1h"), "collect": ["backlog", "limits"]})
            await served.poller.configure([before])
            await until(lambda: len(asked) > 1)
            failing.set()
            for _ in range(steps):
                await asyncio.sleep(0)
            if change == "url":
                await served.poller.configure([before.model_copy(update={"url": f"{new.url}/api"})])
            else:
                await served.poller.configure([])
            assert [(one.name, one.outcome) for one in served.store.view().states] == [("a", None)] * (change == "url")
    # That a part of a poll has failed may be told.
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


class Stubborn(CloroConfig):
    """A source that takes a cancellation for a failure."""

    def build(self, shard: Shard, count_request: CountRequest) -> Source:
        source = super().build(shard, count_request)
        poll = source.poll

        async def stubborn(_: object = None) -> Snapshot:
            with suppress(asyncio.CancelledError):
                return await poll()
            raise SourceError("connect", "cancelled")

        source.poll = stubborn  # type: ignore[method-assign]
        return source


@pytest.mark.parametrize("left", [["a"], []], ids=["replaced", "removed"])
async def test_a_poll_that_goes_on_when_it_is_cancelled_leaves_nothing_behind(
    left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(never) as upstream:
        async with polling(Stubborn.model_validate(cloro(upstream.url, "a"))) as served:
            await until(lambda: bool(upstream.requests))
            await served.poller.configure([of_cloro(name, upstream, url=f"{upstream.url}/new") for name in left])
            assert [(one.name, one.outcome) for one in served.store.view().states] == [(name, None) for name in left]
    assert caplog.text == ""


async def test_what_is_due_when_it_is_removed_is_not_polled(caplog: pytest.LogCaptureFixture) -> None:
    """Nor is anything of it left: a request that is cancelled is counted, but not for a source that is gone."""
    async with serve(with_slots(2)) as upstream:
        async with polling() as served:
            for steps in range(12):
                await served.poller.configure([of_cloro("a", upstream, interval="1h")])
                for _ in range(steps):
                    await asyncio.sleep(0)
                await served.poller.configure([])
                assert served.store.view().states == ()
                assert 'source="a"' not in served.telemetry.render(served.store.view(), Format.CLASSIC).decode()
    assert caplog.text == ""


async def test_an_end_in_the_middle_of_a_reload_is_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """At each step of the loop: what the reload would add is not polled, and nothing is in the way of the other."""
    async with serve(never) as upstream:
        before = [of_cloro(name, upstream, interval="1h") for name in "abc"]
        for steps in range(60):
            async with polling(*before) as served:
                after = [of_cloro(name, upstream, interval="2h") for name in "bcdefgh"]
                reload = asyncio.create_task(served.poller.configure(after))
                for _ in range(steps):
                    await asyncio.sleep(0)
                await served.poller.stop()
                states, requests = served.store.view().states, len(upstream.requests)
                await reload
                await served.poller.configure(before)
                assert served.store.view().states == states
                assert len(upstream.requests) == requests
    assert caplog.text == ""


async def test_a_source_that_can_not_be_built_changes_nothing(tmp_path: Path) -> None:
    """Its certificate vanishes between the check of the configuration and its use."""
    certificates = authority(tmp_path)
    async with serve(with_slots(2)) as upstream:
        before = [of_cloro("a", upstream, interval="5s"), of_cloro("b", upstream, interval="5s")]
        async with polling(*before) as served:
            await until(lambda: served.slots() == {"a": 2, "b": 2})
            states = served.store.view().states
            tls = {"ca_file": str(certificates)}
            broken = of_cloro("b", upstream, url="https://127.0.0.1:1", tls_config=tls)
            certificates.unlink()
            with pytest.raises(OSError, match="No such file"):
                await served.poller.configure([of_cloro("new", upstream), broken])
            assert served.store.view().states == states
            assert served.poller.next_poll("a")
            await served.poller.configure(before)
            assert served.store.view().states == states


# --- The command, while it is scraped.

PASSWORD = "of the scraper"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
OTHER = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
RELOADS = 100
SCRAPERS = 8


def replace(path: Path, content: object) -> None:
    """Write a file as one step, as whoever deploys one does."""
    new = path.with_suffix(".new")
    new.write_text(content if isinstance(content, str) else json.dumps(content))
    os.replace(new, path)  # noqa: PTH105


class Changes:
    """Configurations that follow each other: `stable` and `prod` never change, the others come, go and change."""

    def __init__(self, url: str) -> None:
        self.url = url

    def good(self, number: int) -> dict[str, Any]:
        fixed = [prefect(self.url), cloro(self.url, "stable")]
        # Its settings change, and its upstream does not.
        changing = cloro(self.url, "changing", interval=f"{200 + number}ms")
        coming = [cloro(self.url, f"extra-{one}") for one in range(number % 4)]
        sources = [*coming[:1], *fixed, changing, *coming[1:]]
        # However slow the machine is, no poll fails.
        patient = [one | {"timeout": "20m", "stale_after": "1h"} for one in sources]
        return {"sources": patient if number % 3 else patient[::-1]}

    def bad(self, number: int) -> object:
        good = self.good(number)
        nobody = {**cloro(self.url, "x"), "authorization": {"credentials_file": "/nowhere"}}
        return [
            "sources: [",
            "",
            {**good, "more": 1},
            {"sources": [*good["sources"], good["sources"][0]]},
            {"sources": [*good["sources"], nobody]},
        ][number % 5]


async def scrape_until(done: asyncio.Event, url: str, seen: list[str]) -> None:
    """One scraper in a tight loop over one connection; raises for an answer that is not 200."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, auth=("scraper", PASSWORD), timeout=PATIENCE) as client:
        while not done.is_set():
            seen.append((await client.get("/metrics")).raise_for_status().text)


def names(text: str) -> set[str]:
    """The names and labels of the series of what never goes."""
    return set(re.findall(r'^(?!#)(.*source="(?:prod|stable|changing)".*) ', text, re.MULTILINE))


def sources(text: str) -> set[str]:
    """The sources that have any series."""
    return set(re.findall(r'[{,]source="(.*?)"', text))


def counter(text: str, start: str) -> float:
    (found,) = re.findall(rf"^{re.escape(start)}.* (\S+)$", text, re.MULTILINE)
    return float(found)


def told_to_reload(command: Command) -> httpx.Response:
    return httpx.post(f"{command.url}/-/reload", auth=command.auth, trust_env=False, timeout=PATIENCE)


@contextmanager
def reloadable(tmp_path: Path, url: str) -> Iterator[tuple[Command, Path, Path]]:
    config, web = tmp_path / "exporter.yml", tmp_path / "web.yml"
    replace(config, Changes(url).good(0))
    replace(web, {"basic_auth_users": {"scraper": HASH}})
    flags = ("--config.file", config, "--web.config.file", web, "--web.enable-lifecycle")
    with exporter(tmp_path, *flags, auth=("scraper", PASSWORD)) as command:
        yield command, config, web


@pytest.mark.slow
async def test_no_scrape_fails_and_no_series_flickers(tmp_path: Path) -> None:
    """Eight scrapers in tight loops, while files that are good, bad, longer and shorter are reloaded in both ways."""
    with serving(upstream_answer({f"queue {number}": number for number in range(5)})) as upstream:
        with reloadable(tmp_path, upstream.url) as (command, config, web):
            changes = Changes(upstream.url)
            await asyncio.to_thread(settled, command)
            done = asyncio.Event()
            seen: list[list[str]] = [[] for _ in range(SCRAPERS)]
            scrapers = [asyncio.create_task(scrape_until(done, command.url, one)) for one in seen]
            bad = 0
            configured = {frozenset(one["name"] for one in changes.good(0)["sources"])}
            async with httpx.AsyncClient(
                base_url=command.url, trust_env=False, auth=("scraper", PASSWORD), timeout=PATIENCE
            ) as client:
                for number in range(RELOADS):
                    is_good = number % 3 != 2
                    bad += not is_good
                    web_users = {"scraper": HASH} | ({"other": OTHER} if number % 2 else {})
                    replace(web, {"basic_auth_users": web_users})
                    if is_good:
                        expected = changes.good(number)
                    replace(config, expected if is_good else changes.bad(number))
                    if number % 4 == 0:
                        command.process.send_signal(signal.SIGHUP)
                    reloaded = await client.post("/-/reload")
                    assert reloaded.status_code == (200 if is_good else 500), reloaded.text
                    text = (await client.get("/metrics")).text
                    # Each scraper goes on all the time.
                    await until(lambda number=number: min(map(len, seen)) > number)  # type: ignore[misc]
                    configured.add(frozenset(one["name"] for one in expected["sources"]))
                    assert sources(text) == {one["name"] for one in expected["sources"]}, "the others vanish at once"
                    assert counter(text, "concurrency_exporter_config_last_reload_successful") == is_good
            done.set()
            await asyncio.gather(*scrapers)
            log = command.process.log_text()
    expositions = [text for one in seen for text in one]
    always = names(expositions[0])
    assert sum(one.startswith(SLOTS) for one in always) == 7
    for text in expositions:
        assert names(text) == always
        assert sources(text) in configured, "one configuration or the other, never some of each"
    for one in seen:
        for start in (f'{POLLS}{{outcome="success",source="{name}"' for name in ("prod", "stable", "changing")):
            counts = [counter(text, start) for text in one]
            assert counts == sorted(counts), "counters go on"
    assert log.count("configuration not reloaded") - log.count("web configuration not reloaded") >= bad
    assert "Traceback" not in log


def settled(command: Command) -> None:
    """Wait until every counter that these sources can have is there."""

    def is_settled() -> bool:
        text = command.get().text
        return all(f'source="{name}"' in text for name in ("prod", "stable", "changing")) and SLOTS in text

    command.process.wait_until(is_settled, what="every source was polled")


# --- The web configuration.


def test_a_mistake_in_either_file_is_seen(tmp_path: Path) -> None:
    with serving(upstream_answer({"queue": 3})) as upstream:
        with reloadable(tmp_path, upstream.url) as (command, config, web):

            def successful() -> float:
                found: Series = command.series("concurrency_exporter_config_last_reload_successful")
                return next(iter(found.values()))

            assert successful() == 1
            # Without a reload: the web configuration is read whenever it has changed.
            replace(web, {"basic_auth_users": {"scraper": "plain"}})
            assert successful() == 0
            replace(web, {"basic_auth_users": {"scraper": HASH}})
            assert successful() == 1
            # By a reload, which names the mistakes of both files, and uses neither.
            replace(web, {"basic_auth_users": {"scraper": "plain"}})
            replace(config, {"sources": []})
            answered = told_to_reload(command)
            assert answered.status_code == 500
            assert answered.text == (
                f"{config}:1: sources: is an empty list; name a source to poll\n"
                f"{web}:1: basic_auth_users.scraper: is not a bcrypt hash; make one with htpasswd -nBC 10\n"
            )
            replace(config, {"sources": [cloro(upstream.url)]})
            assert told_to_reload(command).status_code == 500
            assert 'source="prod"' in command.get().text, "nothing is swapped while one of the files has a mistake"
            replace(web, {"basic_auth_users": {"scraper": HASH}})
            assert successful() == 0, "the other file is still not in use"
            assert told_to_reload(command).status_code == 200
            assert 'source="prod"' not in command.get().text
            assert successful() == 1


def test_a_mistake_in_the_configuration_holds_no_web_configuration_up(tmp_path: Path) -> None:
    """It is read whenever it has changed, and a reload makes no difference to that; the sources stay."""
    with serving(upstream_answer({"queue": 3})) as upstream:
        with reloadable(tmp_path, upstream.url) as (command, config, web):
            replace(config, {"sources": []})
            replace(web, {"basic_auth_users": {"scraper": HASH, "other": OTHER}})
            answered = told_to_reload(command)
            assert answered.status_code == 500
            assert answered.text == f"{config}:1: sources: is an empty list; name a source to poll\n"
            asked = httpx.get(f"{command.url}/metrics", auth=("other", "other"), trust_env=False, timeout=PATIENCE)
            assert asked.status_code == 200
            assert 'source="prod"' in asked.text
            assert counter(asked.text, "concurrency_exporter_config_last_reload_successful") == 0


async def test_a_certificate_that_vanishes_in_a_reload_is_a_mistake_and_the_sources_stay(tmp_path: Path) -> None:
    async with serve(with_slots(2)) as upstream:
        async with polling(of_cloro("a", upstream, interval="5s")) as served:
            await until(lambda: served.slots() == {"a": 2})
            certificates = authority(tmp_path)
            tls = {"ca_file": str(certificates)}
            changed = Config(sources=(of_cloro("a", upstream, url="https://127.0.0.1:1", tls_config=tls),))
            reloader = Reloader(lambda: changed, certificates.unlink, served.poller, served.telemetry)
            states = served.store.view().states
            mistake = await reloader.reload()
            assert mistake.startswith("a certificate of tls_config can no longer be used: ")
            assert served.store.view().states == states
            text = served.telemetry.render(served.store.view(), Format.CLASSIC).decode()
            assert counter(text, "concurrency_exporter_config_last_reload_successful") == 0


def test_ready_stays_ready(tmp_path: Path) -> None:
    """A source that is added must not have an orchestrator take the others away."""
    with serving(upstream_answer({"queue": 3})) as upstream, serving(never) as hanging:
        with reloadable(tmp_path, upstream.url) as (command, config, _):
            command.process.wait_until(lambda: command.get("/-/ready").status_code == 200, what="it is ready")
            replace(config, {"sources": [prefect(upstream.url), cloro(hanging.url, "new", interval="1m")]})
            assert told_to_reload(command).status_code == 200
            assert 'source_up{source="new",system="cloro"} 0.0' in command.get().text
            assert command.get("/-/ready").text == "ready\n"


def test_to_be_told_to_reload_while_it_starts_does_not_end_it(tmp_path: Path) -> None:
    """By default the signal ends a process; and a change that comes with it is seen."""
    with serving(upstream_answer({"queue": 3})) as upstream:
        path = tmp_path / "exporter.yml"
        replace(path, {"sources": [cloro(upstream.url, "old")]})
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "exporter",
            "--web.listen-address=127.0.0.1:0",
            "--config.file",
            path,
        ]
        with running(command, log=tmp_path / "log", env=environment()) as process:
            status = Path(f"/proc/{process.pid}/status")
            handles_sigterm = re.compile(r"^SigCgt:\s+[0-9a-f]*[4-7c-f][0-9a-f]{3}$", re.MULTILINE)
            process.wait_until(lambda: handles_sigterm.search(status.read_text()) is not None, what="it is under way")
            replace(path, {"sources": [cloro(upstream.url, "new")]})

            def listens() -> bool:
                process.send_signal(signal.SIGHUP)
                return "msg=listening" in process.log_text()

            process.wait_until(listens, what="it listens")
            process.wait_until(lambda: "configuration reloaded" in process.log_text(), what="it reloads")
            process.send_signal(signal.SIGTERM)
            assert process.wait_for_exit() == 0


def test_the_figures_in_the_documents_are_those_of_these_tests() -> None:
    text = " ".join((ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").split())
    assert f"{RELOADS} reloads by `POST /-/reload` and {RELOADS // 4} by SIGHUP" in text
    assert f"while {SCRAPERS} scrapers" in text
