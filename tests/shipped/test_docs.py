"""The documents say what the code does: references are current, links lead somewhere, and what is named exists."""

import asyncio
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel

from deploy import generate as operator
from docs import cost, generate
from exporter import demo
from exporter.sources import SYSTEMS
from exporter.sources.http_config import BasicAuth, OAuth2
from exporter.sources.oldest import HolderSettings
from exporter.sources.prefect import PrefectConfig
from tests.harness.documents import anchors, blocks
from tests.harness.exporter import exporter
from tests.harness.inprocess import Exporter, Time
from tests.harness.programs import ROOT

DOCUMENTS = generate.documents()
README = ROOT / "README.md"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
_LINK = re.compile(r"\]\(([^)\s]+)\)")

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@each_document
def test_what_is_generated_is_current(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert generate.generated(text) == text, "run `make docs`"


def test_the_rules_of_the_operator_are_current(tmp_path: Path) -> None:
    operator.write(tmp_path / "rule.yaml")
    assert operator.RULE.read_text(encoding="utf-8") == (tmp_path / "rule.yaml").read_text(encoding="utf-8")


def test_every_reference_has_its_place() -> None:
    found = [name for document in DOCUMENTS for name in generate.sections(document.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(generate.SECTIONS)


def test_drift_is_seen() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    drifted = text.replace("| `max_series` | number |", "| `max_series` | string |")
    assert drifted != text
    assert generate.generated(drifted) == text


def test_the_first_commands_are_the_two() -> None:
    first = next(blocks(README))
    assert [line.split("  ")[0] for line in first.text.splitlines()] == ["make run", "make test"]


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(document.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if link.startswith("https://"):
            continue
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link}: there is no {target.relative_to(ROOT)}"
        assert not anchor or anchor in anchors(target), f"{link}: it has no such heading"


@each_document
def test_the_metrics_that_it_names_there_are(document: Path) -> None:
    declared = {family.name for family in generate.families()}
    names = set(re.findall(r"`(concurrency_(?!(?:status|limit)`)\w+)", document.read_text(encoding="utf-8")))
    missing = {name for name in names if re.sub(r"_(bucket|count|sum|gcount|gsum)$", "", name) not in declared}
    assert not missing, "no such metric"


def test_every_document_can_be_found_from_readme() -> None:
    found: set[Path] = set()
    new = {README}
    while new:
        found |= new
        links = {
            (one.parent / link.partition("#")[0]).resolve() for one in new for link in _LINK.findall(one.read_text())
        }
        new = {link for link in links if link.suffix == ".md" and link.exists()} - found
    # Each alert names its runbook by its URL; `tests/shipped/test_alerts.py` has more on them.
    lost = [str(one.relative_to(ROOT)) for one in DOCUMENTS if one not in found and one.parent.name != "runbooks"]
    assert not lost, "link them from the table in README"


def test_every_command_of_make_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    texts = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", texts, re.MULTILINE))
    assert {"run", "test", "check", "bench"} <= named <= targets


def test_every_command_of_make_is_in_a_document() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.*##", makefile, re.MULTILINE))
    texts = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
    assert len(targets) > 10
    assert targets <= set(re.findall(r"\bmake ([a-z]+)\b", texts))


@pytest.mark.parametrize("path", sorted((ROOT / "exporter").glob("**/*.py")), ids=lambda path: path.stem)
def test_every_module_is_in_the_architecture(path: Path) -> None:
    if path.parent.name in {"demo", "prefect"}:
        assert f"{path.parent.name}/`" in ARCHITECTURE
    elif path.stem not in {"__init__", "__main__"}:
        assert path.name in ARCHITECTURE


def test_a_poll_costs_what_the_documents_say() -> None:
    """In `docs/cost.md`: pages for pools and queues, a count and a page of holders and waiting runs, and others."""

    async def requests(*, names: bool) -> list[int]:
        async with demo.serve() as upstreams:
            config = PrefectConfig(
                name="demo", system="prefect", url=upstreams.prefect_url, holders=HolderSettings(show=names)
            )
            async with Exporter(config, time=Time.running()) as polled:
                totals = [0]
                for _ in range(3):
                    state = await polled.poll("demo")
                    totals.append(polled.telemetry.requests("demo"))
            assert state.published
            pools = len(state.published.snapshot.pools)
            assert pools == 4
            return [after - before for before, after in pairwise(totals)]

    later = 1 + 1 + 2 + 2 + 1 + 4
    first = later - 1 + 4 + 2 + 1
    assert asyncio.run(requests(names=False)) == [first, later, later]
    with_names = asyncio.run(requests(names=True))
    assert with_names[0] == first + 2
    # In between, the first run of another deployment may have come.
    assert {later, *with_names[1:]} <= {later, later + 1, later + 2}


def test_the_demo_adds_what_the_documents_say(tmp_path: Path) -> None:
    with exporter(tmp_path, "--demo") as running:
        found = running.series()
    names = Counter(name for name, labels in found if "source" in dict(labels))
    del names["concurrency_exporter_upstream_requests_total"]
    count = {
        "Q": names["concurrency_queue_info"],
        "L": names["concurrency_queue_slot_limit"] - 1,  # cloro's
        "W": names["concurrency_queue_waiting_duration_max_seconds"],
        "H": names["concurrency_queue_state_duration_max_seconds"],
        "P": names["concurrency_pool_info"],
        "G": names["concurrency_limit_info"],
        "C": 1,
        "S": 2,
        "V": 1,
    }
    assert all(count.values())
    of_pools_without_limit = 2 * (count["P"] - names["concurrency_pool_slot_limit"])
    assert of_pools_without_limit
    assert names.total() == sum(each * count[letter] for _, letter, each in cost.things()) - of_pools_without_limit


def test_no_queue_makes_more_series_than_the_documents_say() -> None:
    most = sum(series * {"Q": 1, "L": 1, "W": 1, "H": 3}.get(letter, 0) for _, letter, series in cost.things())
    assert f"never makes more than {most}." in (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    # The example: ten queues, all with a limit, five with holders in one state and tasks that wait, in one pool.
    example = {"Q": 10, "L": 10, "W": 5, "H": 5, "P": 1}
    assert cost.fleet(10)[0] == sum(series * example.get(letter, 0) for _, letter, series in cost.things())


def _all_keys(model: type[BaseModel]) -> set[str]:
    """Those of a model, and of the mappings in it."""
    inner = [one for field in model.model_fields.values() for one in generate._nested(field.annotation)]
    return set(model.model_fields).union(*map(_all_keys, inner))


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_setting_of_a_source_is_in_its_guide(system: str) -> None:
    guide = (ROOT / "docs" / f"{system}.md").read_text(encoding="utf-8")
    table = guide.partition("| key | when |")[2].partition("\n\n")[0]
    keys = _all_keys(SYSTEMS[system])
    assert {"timeout", "type", "insecure_skip_verify"} <= keys
    # `basic_auth` and `oauth2` are not for cloro, so the keys in them are not either.
    unused = _all_keys(BasicAuth) | _all_keys(OAuth2) if system == "cloro" else set()
    assert keys - unused <= set(re.findall(r"`(\w+)`", table))


def test_every_request_to_prefect_is_in_its_guide() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "exporter/sources/prefect").glob("*.py"))
    guide = (ROOT / "docs" / "prefect.md").read_text(encoding="utf-8")
    named = re.findall(r"`(?:GET|POST) (/\S+)`", guide)
    assert sorted(named) == sorted(set(re.findall(r'"(/[a-z_0-9/{}-]+)"', code)))
