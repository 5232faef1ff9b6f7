"""What a system answers, and beside it what is published for that: in classic text (.prom) and OpenMetrics (.om).

A case is a file <system>/golden/<case>.json, or a folder with such a file and what belongs to it. It has for each path
the answers, and what was asked (null where the request has no body), and may have `settings` of the source, and `now`,
the server's time; a case of cloro has its one answer. To write the published side anew, run with --update-golden, and
read the difference.
"""

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporter.metrics.body import Body
from exporter.metrics.exposition import Rendered, render
from exporter.metrics.text import Format
from exporter.shard import WHOLE
from exporter.sources import SYSTEMS
from exporter.sources.base import SourceConfig
from tests.harness.cloro import KEY, Cloro
from tests.harness.prometheus import promtool_check_metrics
from tests.harness.upstream import Answer, Request, Upstream, answer, serve

HERE: Final = Path(__file__).parent
CASES: Final = sorted([*HERE.glob("*/golden/*.json"), *HERE.glob("*/golden/*/*.json")])
VERSION: Final = "/api/admin/version"
NAMES: Final = [str(case.relative_to(HERE).with_suffix("")).replace("/golden/", "/") for case in CASES]

golden = pytest.mark.parametrize("case", CASES, ids=NAMES)


def cloro(url: str) -> dict[str, Any]:
    return {"url": url, "authorization": {"credentials": KEY}}


def prefect(url: str) -> dict[str, Any]:
    return {"url": f"{url}/api", "collect": ["queues", "pools"]}


def plain(url: str) -> dict[str, Any]:
    return {"url": url}


SETTINGS: Final[dict[str, Callable[[str], dict[str, Any]]]] = {"cloro": cloro, "prefect": prefect}


def fake(system: str, scripted: Any, now: datetime | None) -> Answer:
    """cloro has one answer. Of any other there is a list of answers for each path, and of Prefect its version."""
    if system == "cloro":
        return Cloro(status=scripted)
    date = {"Date": format_datetime(now, usegmt=True)} if now else {}
    answers = {path: iter(of_path) for path, of_path in scripted.items()}

    def next_answer(request: Request) -> bytes:
        if request.path == VERSION:
            return answer("3.9.1")
        scripted: dict[str, Any] = next(answers.get(request.path, iter(())), {"body": "not scripted", "status": 599})
        return answer(scripted["body"], scripted.get("status", 200), date)

    return next_answer


def relative(asked: Any, now: datetime | None) -> Any:
    """What was asked, with `now`, `now-3650d` or `now+3650d` for times of the server's clock."""
    match asked:
        case dict():
            return {key: relative(value, now) for key, value in asked.items()}
        case str() if now and re.fullmatch(r"[0-9-]{10}T[0-9:.]{8,15}\+00:00", asked):
            days = round((datetime.fromisoformat(asked) - now) / timedelta(days=1))
            exactly = abs(datetime.fromisoformat(asked) - now - timedelta(days=days)) < timedelta(seconds=10)
            return (f"now{days:+}d" if days else "now") if exactly else asked
    return asked


def assert_asked_as_scripted(
    upstream: Upstream, scripted: dict[str, list[dict[str, Any]]], now: datetime | None
) -> None:
    for path in {*scripted, *(request.path for request in upstream.requests)} - {VERSION}:
        asked = [
            relative(json.loads(request.body or b"null"), now) for request in upstream.requests if request.path == path
        ]
        assert asked == [one["asked"] for one in scripted[path]], path


def read(case: Path) -> Any:
    return json.loads(case.read_text(encoding="utf-8"))


async def published(case: Path) -> Rendered:
    system = case.relative_to(HERE).parts[0]
    scripted = read(case)
    changed, now = {}, None
    if system != "cloro":
        changed = scripted.pop("settings", {})
        now = datetime.fromisoformat(scripted.pop("now")) if "now" in scripted else None
    async with serve(fake(system, scripted, now)) as upstream:
        settings = {"name": "golden", "system": system} | SETTINGS.get(system, plain)(upstream.url) | changed
        config: SourceConfig = SYSTEMS[system].model_validate(settings)
        source = config.build(WHOLE, lambda *_: None)
        snapshot = await source.poll()
        await source.close()
    assert snapshot.unreadable == ()
    if system != "cloro":
        assert_asked_as_scripted(upstream, scripted, now)
    return render(snapshot, source=config.name, system=config.system, max_series=config.max_series)


@golden
@pytest.mark.parametrize(
    ("format_", "suffix", "end"), [(Format.CLASSIC, ".prom", b""), (Format.OPENMETRICS, ".om", b"# EOF\n")]
)
async def test_what_is_published(case: Path, format_: Format, suffix: str, end: bytes, *, update_golden: bool) -> None:
    text = b"".join(Body([await published(case)], format_).plain(end))
    if update_golden:
        case.with_suffix(suffix).write_bytes(text)
    assert text.decode() == case.with_suffix(suffix).read_bytes().decode()


@golden
async def test_series_are_counted_as_they_are_published(case: Path) -> None:
    rendered = await published(case)
    lines = b"".join(Body([rendered], Format.CLASSIC).plain(b"")).splitlines()
    assert rendered.series == sum(not line.startswith(b"#") for line in lines)


@golden
def test_promtool_has_no_complaints(case: Path) -> None:
    assert promtool_check_metrics(case.with_suffix(".prom").read_text(encoding="utf-8")) == []


@golden
def test_openmetrics_is_strictly_so(case: Path) -> None:
    text = case.with_suffix(".om").read_text(encoding="utf-8")
    list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def test_every_golden_file_has_a_case() -> None:
    golden = {*HERE.glob("**/*.prom"), *HERE.glob("**/*.om")}
    assert golden == {case.with_suffix(suffix) for case in CASES for suffix in (".prom", ".om")}
