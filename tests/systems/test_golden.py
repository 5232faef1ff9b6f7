"""What a system answers, and beside it what is published for that: in classic text (.prom) and OpenMetrics (.om).

A case is a file <system>/golden/<case>.json, or a folder with such a file and what belongs to it. It has for each path
the answers, and what was asked (null where the request has no body), and may have `settings` of the source, and `now`,
the server's time; where `case.py` has `one_answer`, the file is that answer. To write the published side anew, run
with --update-golden, and read the difference.
"""

import json
import re
from collections.abc import Collection
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
from tests.harness.cases import CASES, Case
from tests.harness.prometheus import promtool_check_metrics
from tests.harness.upstream import Answer, Request, Upstream, answer, serve

HERE: Final = Path(__file__).parent
PATHS: Final = sorted([*HERE.glob("*/golden/*.json"), *HERE.glob("*/golden/*/*.json")])
NAMES: Final = [str(case.relative_to(HERE).with_suffix("")).replace("/golden/", "/") for case in PATHS]

golden = pytest.mark.parametrize("case", PATHS, ids=NAMES)


def fake(case: Case, scripted: Any, now: datetime | None) -> Answer:
    """Answer each path with what is scripted for it, in that order."""
    if case.one_answer:
        return case.one_answer(scripted)
    date = {"Date": format_datetime(now, usegmt=True)} if now else {}
    answers = {path: iter(of_path) for path, of_path in scripted.items()}

    def next_answer(request: Request) -> Any:
        if request.path in case.besides:
            return case.besides[request.path]
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
    upstream: Upstream, scripted: dict[str, list[dict[str, Any]]], now: datetime | None, besides: Collection[str]
) -> None:
    for path in {*scripted, *(request.path for request in upstream.requests)} - {*besides}:
        asked = [
            relative(json.loads(request.body or b"null"), now) for request in upstream.requests if request.path == path
        ]
        assert asked == [one["asked"] for one in scripted[path]], path


def read(case: Path) -> Any:
    return json.loads(case.read_text(encoding="utf-8"))


async def published(path: Path) -> Rendered:
    system = path.relative_to(HERE).parts[0]
    case, scripted = CASES[system], read(path)
    changed, now = {}, None
    if not case.one_answer:
        changed = scripted.pop("settings", {})
        now = datetime.fromisoformat(scripted.pop("now")) if "now" in scripted else None
    async with serve(fake(case, scripted, now)) as upstream:
        settings = {"name": "golden", "system": system, **case.source(upstream.url), **changed}
        config: SourceConfig = SYSTEMS[system].model_validate(settings)
        source = config.build(WHOLE, lambda *_: None)
        snapshot = await source.poll()
        await source.close()
    assert snapshot.unreadable == ()
    if not case.one_answer:
        assert_asked_as_scripted(upstream, scripted, now, case.besides)
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
    assert golden == {case.with_suffix(suffix) for case in PATHS for suffix in (".prom", ".om")}
