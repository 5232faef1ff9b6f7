"""Every block of code in every document is run, or read by what would read it; one that nothing here knows fails.

A document's blocks share a folder, from the top to the end: a block whose first line is `# FILE` is that file for those
after it. A command that can be run is run: what is on PATH is in `PROGRAMS` and in `tests/commands`.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from docs.generate import documents
from exporter import config, demo
from exporter.web import config as web_config
from tests.harness.alertmanager import alertmanager
from tests.harness.certificates import authority
from tests.harness.documents import Block, blocks
from tests.harness.nginx import command as nginx_command
from tests.harness.process import PATIENCE, free_port
from tests.harness.programs import ROOT, kubectl, program
from tests.harness.promql import declared, undeclared
from tests.harness.rules import FILES

COMMANDS: Final = ROOT / "tests" / "commands"
PROGRAMS: Final = (
    "bash",
    "cat",
    "cp",
    "curl",
    "grep",
    "head",
    "kill",
    "ls",
    "mkdir",
    "printf",
    "sed",
    "sleep",
    "sort",
    "wc",
)
"""What a block may run as it is, beside `promtool`, `amtool` and `jq`."""
NOT_RUN: Final = ("docker", "git", "helm", "install", "kubectl", "pip", "pipx", "systemctl")
"""What can't be run here, or is by other tests; the files that it names have to exist."""


IN_OTHER_TESTS: Final = {
    "adding-a-system.md": "tests/shipped/test_adding_a_system.py",
    "throttling.md": "tests/shipped/test_throttling.py",
}
"""Documents whose blocks have a test of their own."""


@dataclass
class Scratch:
    """The folder in which the blocks of a document are at work, and what the last command printed."""

    folder: Path
    cwd: Path
    env: dict[str, str]
    ports: Mapping[str, str]
    """What stands in a document for a port -> the port that it is here."""
    output: str = ""

    def write(self, block: Block) -> Path:
        """The block as a file, with the files that it names beside it."""
        path = self.cwd / (block.file or "example.yml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        return path


Check = Callable[[Block, Scratch], None]


# --- YAML: by a key at its top.


def source_file(block: Block, scratch: Scratch) -> None:
    path = scratch.write(block)
    for file in re.findall(r"(?:_file: |\bfiles: \[)([^\s\]]+)", block.text):
        (path.parent / file).write_text("secret\n", encoding="utf-8")
    config.load(path)


def web_file(block: Block, scratch: Scratch) -> None:
    path = scratch.write(block)
    for name in {*re.findall(r"(\S+)\.crt", block.text), *re.findall(r"(\S+)\.key", block.text)}:
        authority(path.parent, name).rename(path.parent / f"{name}.crt")
    web_config.load(path)


def prometheus_file(block: Block, scratch: Scratch) -> None:
    path = scratch.write(block)
    for file in re.findall(r"\S+\.yml", block.text):
        if Path(file).name in FILES:
            (path.parent / file).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / "alerts" / Path(file).name, path.parent / file)
    check(program("promtool"), "check", "config", path)


def rules_file(block: Block, scratch: Scratch) -> None:
    path = scratch.write(block)
    if block.text.startswith("- "):
        path.write_text(f"groups:\n- name: example\n  rules:\n{re.sub('^', '  ', block.text, flags=re.MULTILINE)}")
    check(program("promtool"), "check", "rules", path)
    for group in YAML(typ="safe").load(path)["groups"]:
        for rule in group["rules"]:
            assert undeclared(rule["expr"]) == []


def alertmanager_file(block: Block, scratch: Scratch) -> None:
    check(program("amtool"), "check-config", scratch.write(block))


def kustomization_file(block: Block, scratch: Scratch) -> None:
    check(kubectl(), "kustomize", scratch.write(block).parent)


KINDS_OF_YAML: Final[Mapping[str, Check]] = {
    "sources": source_file,
    "tls_server_config": web_file,
    "basic_auth_users": web_file,
    "rate_limit": web_file,
    "scrape_configs": prometheus_file,
    "rule_files": prometheus_file,
    "alerting": prometheus_file,
    "groups": rules_file,
    "record": rules_file,
    "alert": rules_file,
    "receivers": alertmanager_file,
    "resources": kustomization_file,
}


def yaml(block: Block, scratch: Scratch) -> None:
    top = YAML(typ="safe").load(block.text)
    kinds = {KINDS_OF_YAML[key] for key in (top[0] if isinstance(top, list) else top) if key in KINDS_OF_YAML}
    assert len(kinds) == 1, "not of one kind that KINDS_OF_YAML knows"
    kinds.pop()(block, scratch)


# --- The other languages.


def shell(block: Block, scratch: Scratch) -> None:
    script = block.text
    for port, here in scratch.ports.items():
        script = re.sub(rf"\b{port}\b", here, script)
    scratch.output = check("bash", "-euo", "pipefail", "-c", script, cwd=scratch.cwd, env=scratch.env)


def promql(block: Block, _: Scratch) -> None:
    assert undeclared(block.text) == []


def text(block: Block, scratch: Scratch) -> None:
    """What a command prints, lines of a log, metrics, or a drawing."""
    if "──" in block.text:
        return
    if messages := re.findall(r'^level=\w+ msg="?(.*?)"? \w+=', block.text, re.MULTILINE):
        # `tests/shipped/test_troubleshooting.py` has the rest of such lines.
        code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "exporter").rglob("*.py"))
        assert [message for message in messages if f'"{message}"' not in code] == []
        return
    if scratch.output:
        printed = scratch.output + (scratch.folder / "exporter.log").read_text(encoding="utf-8")
        shapes = {_shape(line, scratch) for line in printed.splitlines()}
        for line in block.text.splitlines():
            assert _shape(line, scratch) in shapes, f"not printed: {line}\n--- but\n{printed}"
    else:
        series = declared()
        samples = [sample for family in text_string_to_metric_families(block.text) for sample in family.samples]
        assert samples
        for sample in samples:
            assert {*sample.labels} <= series[sample.name], sample


def json_(block: Block, scratch: Scratch) -> None:
    """What a request printed just before, with other values, or any JSON."""
    example = json.loads(block.text)
    if scratch.output:
        assert json.loads(scratch.output).keys() == example.keys()


def _shape(line: str, scratch: Scratch) -> str:
    """A line without what is another at each run: its numbers, and how wide the columns are."""
    for port, here in scratch.ports.items():
        line = re.sub(rf"\b{here}\b", port, line)
    return " ".join(re.sub(r"[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", "0", line).split())


def nginx(block: Block, scratch: Scratch) -> None:
    """A `location`, within a server."""
    server = f"server {{ listen 127.0.0.1:{free_port()};\n{block.text}\n}}"
    check(*nginx_command(scratch.folder / "nginx", server), "-t")


LANGUAGES: Final[Mapping[str, Check]] = {
    "yaml": yaml,
    "sh": shell,
    "promql": promql,
    "text": text,
    "json": json_,
    "nginx": nginx,
}


def check(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command that has to succeed; what it prints."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}"
    return done.stdout


# --- The tests.


@contextmanager
def scratch_of(document: Path, folder: Path, ports: dict[str, str]) -> Iterator[Scratch]:
    tree = folder / "tree"
    for part in ("alerts", "dashboards", "deploy", "docs"):
        if (ROOT / part).exists():
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    programs = folder / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).symlink_to(str(shutil.which(name)))
    for name in NOT_RUN:
        (programs / name).symlink_to(COMMANDS / "names-what-exists")
    for name in ("promtool", "amtool", "jq"):
        if any(name in block.text for block in blocks(document) if block.language == "sh"):
            (programs / name).symlink_to(program(name))
    env = {
        "PATH": f"{COMMANDS}:{programs}",
        "HOME": str(folder),
        "ROOT": str(ROOT),
        "SCRATCH": str(folder),
        "PORT": ports["10099"],
        "EXPORTER": str(Path(sys.executable).parent / "concurrency-exporter"),
        "MAKE_PROGRAM": str(shutil.which("make")),
    }
    if "4200" in ports:
        env["PREFECT_API_URL"] = f"http://localhost:{ports['4200']}/api"
    (folder / "exporter.log").touch()
    own = document.parent.relative_to(ROOT) if document.is_relative_to(ROOT) else Path()
    try:
        yield Scratch(folder, tree if own == Path("docs") else tree / own, env, ports)
    finally:
        if (pid := folder / "exporter.pid").exists():
            os.kill(int(pid.read_text()), signal.SIGTERM)


@asynccontextmanager
async def servers(document: Path, folder: Path) -> AsyncIterator[dict[str, str]]:
    """The servers that the document speaks of, by the ports at which it has them: those that they are at here."""
    text = "".join(block.text for block in blocks(document))
    ports = {"10099": str(free_port())}
    async with AsyncExitStack() as stack:
        if ":4200/" in text or "$PREFECT_API_URL" in text:
            upstreams = await stack.enter_async_context(demo.serve())
            (ports["4200"],) = re.findall(r":(\d+)/", upstreams.prefect_url)
        if "localhost:9093" in text:
            address = stack.enter_context(alertmanager(folder / "alertmanager", ROOT / "alerts" / "alertmanager.yml"))
            ports["9093"] = address.rpartition(":")[2]
        yield ports


async def examples_work(document: Path, folder: Path) -> None:
    """Run or check every block of a document. An error has a note that tells of which block it is."""
    async with servers(document, folder) as ports:
        with scratch_of(document, folder, ports) as scratch:
            for block in blocks(document):
                try:
                    assert block.language in LANGUAGES, f"no language that LANGUAGES knows: {block.language!r}"
                    await asyncio.to_thread(LANGUAGES[block.language], block, scratch)
                except BaseException as error:
                    error.add_note(f"{block.place}: the block of this line")
                    raise
                if block.language != "sh":
                    scratch.output = ""


@pytest.mark.parametrize(
    "document",
    [document for document in documents() if document.name not in IN_OTHER_TESTS and any(blocks(document))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
async def test_the_examples_work(document: Path, tmp_path: Path) -> None:
    await examples_work(document, tmp_path)


WRONG: Final = {
    "an unknown language": "```cobol\nSTOP RUN.\n```",
    "no language": "```\nmake run\n```",
    "an unknown command": "```sh\ngrafana-cli plugins ls\n```",
    "an unknown flag": "```sh\nconcurrency-exporter --listen=:80\n```",
    "an unknown target": "```sh\nmake coffee\n```",
    "a file that is not there": "```sh\nkubectl apply -f deploy/no-such.yml\n```",
    "a failing command in the middle": "```sh\nls no-such\nls\n```",
    "an unknown key": "```yaml\nsources:\n  - name: a\n    system: prefect\n    url: http://a/api\n    every: 5s\n```",
    "YAML of no kind": "```yaml\ncolour: blue\n```",
    "an unknown metric": "```promql\nsum(concurrency_queue_slots)\n```",
    "another answer": '```sh\nprintf "{}"\n```\n\n```json\n{"a": 1}\n```',
    "an unknown label": '```text\nconcurrency_queue_slot_limit{host="a"} 1\n```',
    "what is not printed": "```sh\nconcurrency-exporter --version\n```\n\n```text\nexporter 1.0\n```",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
async def test_a_wrong_example_fails(text: str, tmp_path: Path) -> None:
    document = tmp_path / "wrong.md"
    document.write_text(f"Like this:\n\n{text}\n", encoding="utf-8")
    with pytest.raises(BaseException) as raised:  # noqa: PT011  of whichever kind the reader of such a block has
        await examples_work(document, tmp_path)
    assert not isinstance(raised.value, pytest.skip.Exception)
    assert "wrong.md:" in "".join(raised.value.__notes__)
