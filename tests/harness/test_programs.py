import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import programs


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setattr(programs, "ROOT", empty)
    monkeypatch.setattr(programs, "SYSTEM", empty)


def outcome(find: Callable[[], object]) -> tuple[type[BaseException], str]:
    # Both kinds are caught: one that is not would end the test as skipped instead of failed.
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception)) as raised:
        find()
    return type(raised.value), str(raised.value)


@pytest.mark.parametrize(
    ("ci", "kind"), [(None, pytest.skip.Exception), ("", pytest.skip.Exception), ("true", pytest.fail.Exception)]
)
def test_a_missing_program_skips_except_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str | None, kind: type[BaseException]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)
    assert outcome(lambda: programs.program("amtool")) == (
        kind,
        "amtool is not on PATH: apt install prometheus-alertmanager",
    )
    found, reason = outcome(programs.prefect_python)
    assert found is kind
    assert ".cache/prefect/bin/pip install -r tests/requirements-prefect.txt" in reason
    _, reason = outcome(lambda: programs.prefect_python("3.6.22"))
    assert ".cache/prefect-3.6.22/bin/pip install -r tests/requirements-prefect-3.6.22.txt" in reason
    assert outcome(lambda: programs.postgres_program("initdb")) == (
        kind,
        "initdb is not on PATH: apt install postgresql",
    )


@pytest.mark.parametrize("name", programs._ON_PATH)
def test_each_is_installed_where_it_is_missing(name: str) -> None:
    script = (Path(__file__).parents[1] / "install-programs").read_text(encoding="utf-8")
    names, _ = programs._ON_PATH[name]
    assert any(re.search(rf"\[{one}\]=|^install .*\b{one}\b", script, re.MULTILINE) for one in names)


def test_an_unpacked_postgresql_is_found_with_its_libraries() -> None:
    assert programs.libraries() == {}
    folder = programs.ROOT / ".cache" / "programs" / "usr" / "lib"
    for name in ("postgresql/9/bin", "x86_64-linux-gnu"):
        (folder / name).mkdir(parents=True)
    program = folder / "postgresql" / "9" / "bin" / "initdb"
    program.touch()
    assert programs.postgres_program("initdb") == program
    assert programs.libraries() == {"LD_LIBRARY_PATH": str(folder / "x86_64-linux-gnu")}
