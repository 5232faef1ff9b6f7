"""A reload: what changed is swapped at once, what did not goes on, and nobody who scrapes meanwhile sees a gap."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import httpx

from tests.harness.command import cloro, environment, prefect, upstream_answer
from tests.harness.exporter import Exporter as Command
from tests.harness.exporter import Series, exporter
from tests.harness.loop import until
from tests.harness.process import PATIENCE, running
from tests.harness.programs import ROOT
from tests.harness.upstream import never, serving

SLOTS = "concurrency_queue_active_slots"
POLLS = "concurrency_exporter_polls_total"


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
