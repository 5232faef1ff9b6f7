from collections.abc import Callable

import pytest

from tests.harness import programs


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setattr(programs, "ROOT", empty)


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
