"""The example of a new system is one: added to a copy of the exporter as its page says, it is polled and served."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.harness.documents import blocks
from tests.harness.process import PATIENCE, answers, free_port, running
from tests.harness.programs import ROOT
from tests.harness.upstream import Answer, answer, serve

BLOCKS = list(blocks(ROOT / "docs" / "adding-a-system.md"))
UPSTREAM = "http://farm.example.com"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the exporter to which the system was added as the page says."""
    module, union = BLOCKS[1], BLOCKS[2]
    shutil.copytree(ROOT / "exporter", tmp_path / "exporter", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert module.file
    (tmp_path / module.file).write_text(module.text.partition("\n")[2], encoding="utf-8")
    # Outside of a repository: git would take the paths as meant from the top of the one around it.
    subprocess.run(
        ["git", "apply", "-"],
        input=union.text,
        text=True,
        cwd=tmp_path,
        check=True,
        env={"GIT_CEILING_DIRECTORIES": "/"},
    )
    return tmp_path


def test_the_blocks_are_these() -> None:
    assert [block.language for block in BLOCKS] == ["json", "python", "diff", "yaml", "text", "text", "python"]


@pytest.mark.parametrize("command", [["ruff", "format", "--check"], ["ruff", "check"]], ids=" ".join)
def test_it_passes_the_linters(tree: Path, command: list[str]) -> None:
    case = tree / "case.py"
    case.write_text(BLOCKS[6].text.partition("\n")[2], encoding="utf-8")
    files = [tree / "exporter/sources/buildfarm.py", tree / "exporter/sources/__init__.py", case]
    subprocess.run([sys.executable, "-m", *command, *files], cwd=tree, check=True)


async def served(tree: Path, what: Answer) -> tuple[list[str], str]:
    """The lines of `/metrics` that tell of the queues, and the log, after one poll of an upstream that answers so."""
    async with serve(what) as upstream:
        (tree / "config.yml").write_text(BLOCKS[3].text.replace(UPSTREAM, upstream.url), encoding="utf-8")
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "exporter",
            "--config.file=config.yml",
            f"--web.listen-address=127.0.0.1:{port}",
        ]

        def scrape() -> tuple[str, str]:
            with running(command, log=tree / "log", cwd=tree) as process:
                process.wait_until(answers(f"http://127.0.0.1:{port}/-/ready"), what="it is ready")
                metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=PATIENCE).text
                return metrics, process.log_text().replace(upstream.url, UPSTREAM)

        metrics, log = await asyncio.to_thread(scrape)
        assert {request.path for request in upstream.requests} == {"/api/queues"}
    return [line for line in metrics.splitlines() if line.startswith("concurrency_queue_")], log


async def test_it_is_polled_and_served(tree: Path) -> None:
    lines, _ = await served(tree, lambda _: answer(json.loads(BLOCKS[0].text)))
    assert lines == BLOCKS[4].text.splitlines()


async def test_an_answer_that_breaks_its_contract_fails_the_poll(tree: Path) -> None:
    broken = json.loads(BLOCKS[0].text)
    del broken["queues"][0]["waiting"]
    lines, log = await served(tree, lambda _: answer(broken))
    assert lines == []
    assert BLOCKS[5].text.strip() in log


@pytest.mark.slow
def test_one_module_one_word_a_case_and_golden_files_are_all(tree: Path) -> None:
    """What else tells of the system is generated of it."""
    for folder in ("alerts", "dashboards", "deploy", "docs", "tests"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for document in ROOT.glob("*.md"):
        shutil.copy(document, tree)
    case = BLOCKS[6]
    assert case.file
    golden = (tree / case.file).parent / "golden"
    golden.mkdir(parents=True)
    asked = {"/queues": [{"asked": None, "body": json.loads(BLOCKS[0].text)}]}
    (golden / "queues.json").write_text(json.dumps(asked), encoding="utf-8")

    def done(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *command], cwd=tree, capture_output=True, text=True, check=False)

    def run(*command: str) -> str:
        ended = done(*command)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def refused(*command: str) -> str:
        ended = done(*command)
        assert ended.returncode != 0
        return ended.stdout + ended.stderr

    of_it = ("-m", "pytest", "-k", "buildfarm", "-p", "no:cacheprovider")
    assert "buildfarm has no tests/systems/buildfarm/case.py" in refused(*of_it, "tests/systems")
    (tree / case.file).write_text(case.text.partition("\n")[2], encoding="utf-8")
    run(*of_it, "tests/systems/test_golden.py", "--update-golden")
    assert "concurrency_queue_active_slots" in (golden / "queues.prom").read_text(encoding="utf-8")
    assert " passed" in run(*of_it, "tests/systems")
    run("-m", "docs.generate")
    run("-m", "dashboards.build")

    caches = {"__pycache__", ".hypothesis"}
    files = (path for path in tree.rglob("*") if path.is_file() and not caches.intersection(path.parts))
    written = {
        str(name)
        for name in (path.relative_to(tree) for path in files)
        if not (ROOT / name).exists() or (ROOT / name).read_bytes() != (tree / name).read_bytes()
    }
    generated = {"docs/configuration.md", "docs/metrics.md"}
    assert written == generated | {
        "exporter/sources/buildfarm.py",
        "exporter/sources/__init__.py",
        "tests/systems/buildfarm/case.py",
        *(f"tests/systems/buildfarm/golden/queues.{suffix}" for suffix in ("json", "prom", "om")),
    }
    before, after = (
        (root / "exporter/sources/__init__.py").read_text(encoding="utf-8").splitlines() for root in (ROOT, tree)
    )
    imported, union = (line for line in after if line not in before)
    assert imported == "from exporter.sources.buildfarm import BuildfarmConfig"
    assert union.replace(" | BuildfarmConfig", "") in before
    assert "## Where Build farm's values come from" in (tree / "docs/metrics.md").read_text(encoding="utf-8")
    assert "Prefect, cloro and Build farm." in " ".join(run("-m", "exporter", "--help").split())
