"""A reload in the process: what changed is swapped at once, and what did not goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

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
from tests.harness.command import cloro, prefect
from tests.harness.inprocess import Exporter, Time, of_cloro
from tests.harness.lookalike import BROKEN, COUNT, HISTORY, small
from tests.harness.loop import until
from tests.harness.upstream import Request, answer, never, serve


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
            assert "concurrency_exporter_config_last_reload_successful 0.0" in text.splitlines()
