"""The fuzzed functions for a short while: what once broke them, what fuzzers begin with, and atheris itself."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from exporter.metrics.text import Format
from tests.fuzz import strict, targets, upstream
from tests.fuzz.__main__ import CRASHERS, NAMES, refused_by_promtool, seeds
from tests.harness.process import PATIENCE
from tests.harness.programs import ROOT, missing, program

CASES = [(name, path) for name in NAMES for path in sorted((CRASHERS / name).glob("*"))]


@pytest.mark.parametrize(("target", "path"), CASES, ids=[f"{target}-{path.name}" for target, path in CASES])
def test_what_once_broke_it(target: str, path: Path) -> None:
    targets.TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", NAMES)
def test_what_fuzzers_begin_with(target: str) -> None:
    for seed in seeds(target):
        targets.TARGETS[target](seed)


def test_the_documents_count_them() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert f"any of the {len(upstream.KINDS)} routes" in text
    assert f"for one input of {targets._SAMPLED} both parsers" in text


def test_atheris_finds_nothing_in_a_moment() -> None:
    if not find_spec("atheris"):
        raise missing("atheris is not installed: it has wheels for Linux and Python up to 3.13")
    command = [sys.executable, "-m", "tests.fuzz", "answers", "--seconds", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout
    row = done.stdout.split("\n")[2]
    assert row.startswith("| answers | ")
    assert row.endswith(" | nothing |")
    assert int(row.split(" | ")[1].replace(",", "")) > len(seeds("answers"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """What is there at the end of a fuzz that found nothing new."""
    (folder := tmp_path / "corpus").mkdir()
    for number, seed in enumerate(seeds("answers")):
        (folder / str(number)).write_bytes(seed)
    return folder


def test_promtool_agrees(corpus: Path) -> None:
    program("promtool")
    assert refused_by_promtool(corpus) == ""


def test_where_promtool_does_not_agree_the_input_is_named(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = corpus.with_name("promtool")
    stand_in.write_text("#!/bin/sh\ncat >/dev/null; echo no; exit 3\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(stand_in.parent), prepend=":")
    said = refused_by_promtool(corpus).splitlines()
    assert len(said) > 5
    assert all(line.endswith(": ['no']") for line in said)


GOOD = r"""
# HELP a_b A.
# TYPE a_b gauge
a_b{x="1",y="\\ \n \""} 1.0
a_b{x="2"} -2e+16
# HELP c A.
# TYPE c counter
c 1
""".lstrip()
HISTOGRAM = '# HELP h A.\n# TYPE h histogram\nh_bucket{le="1.0"} 1\nh_bucket{le="+Inf"} 2\nh_count 2\nh_sum 3\n'


def test_the_strict_check_takes_what_is_good() -> None:
    assert strict.check(GOOD.encode(), Format.CLASSIC) == {
        ("a_b", (("x", "1"), ("y", '\\ \n "'))): 1,
        ("a_b", (("x", "2"),)): -2e16,
        ("c", ()): 1,
    }
    assert len(strict.check(HISTOGRAM.encode(), Format.CLASSIC)) == 4
    assert strict.check(b"# EOF\n", Format.OPENMETRICS) == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('x="2"} -2e+16', 'x="1",y="\\\\ \\n \\""} 3'),
        ("-2e+16", "NaN"),
        ("-2e+16", "+Inf"),
        ("-2e+16", ""),
        ('x="2"', 'x="2",x="3"'),
        ('x="2"', 'x="2",'),
        ('x="2"', 'x="2'),
        ('x="2"', 'x="\\t"'),
        ('x="2"', 'x-y="2"'),
        ("c 1\n", "c 1"),
        ("c 1\n", "c 1\na_b 3\n"),
        ("c 1\n", "c 1\n# HELP a_b A.\n# TYPE a_b gauge\na_b 3\n"),
        ("c 1\n", "c 1\n\n"),
        ("c 1\n", "c 1\n# TYPE c counter\n"),
        ("# TYPE c counter\n", ""),
        ("c 1\n", "c_bucket 1\n"),
    ],
)
def test_the_strict_check_refuses(before: str, after: str) -> None:
    broken = GOOD.replace(before, after)
    assert broken != GOOD
    with pytest.raises(strict.NotValidError):
        strict.check(broken.encode(), Format.CLASSIC)


@pytest.mark.parametrize(
    ("before", "after"),
    [('+Inf"} 2', '+Inf"} 0'), ("+Inf", "2.0"), ("h_count 2", "h_count 3"), ('le="1.0"', 'le="+Inf",x="1"')],
)
def test_the_strict_check_refuses_buckets(before: str, after: str) -> None:
    with pytest.raises(strict.NotValidError):
        strict.check(HISTOGRAM.replace(before, after).encode(), Format.CLASSIC)


@pytest.mark.parametrize("text", [b"", b"# EOF\n# EOF\n", b"# EOF", b"# EOF\n# TYPE a gauge\n"])
def test_the_strict_check_wants_the_end_of_openmetrics(text: bytes) -> None:
    with pytest.raises(strict.NotValidError):
        strict.check(text, Format.OPENMETRICS)
