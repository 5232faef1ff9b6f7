"""Each rule of the configuration has a file in `config/bad`, and beside it exactly what the user is told."""

import json
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr, ValidationError

from exporter.cli import main
from exporter.config import Config, from_environment, load
from exporter.settings.base import Settings
from exporter.settings.reader import ConfigError
from exporter.sources import SYSTEMS, AnySource
from exporter.sources.cloro import CloroConfig
from exporter.sources.prefect import PrefectConfig

FOLDER = Path(__file__).parent / "config"
GOOD = sorted(FOLDER.glob("good*.yml"))
BAD = sorted(FOLDER.glob("bad/*.yml"))
CANARY = "canary-5ecret"
"""A secret that is in every file of the folder, and in nothing that is said of it."""


@pytest.fixture
def in_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)


@pytest.fixture
def process_as_before() -> Iterator[None]:
    """The command owns its process: undo what it sets there."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root = logging.getLogger()
    logging_before = (root.handlers, root.level)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    root.handlers, root.level = logging_before
    structlog.reset_defaults()


@pytest.mark.usefixtures("in_folder", "process_as_before")
@pytest.mark.parametrize("path", [*GOOD, *BAD], ids=lambda path: path.stem)
def test_the_check_says_exactly_what_is_wrong(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = path in GOOD
    exit_code = main(["--config.check", "--config.file", str(path.relative_to(FOLDER))])
    output = capsys.readouterr()
    assert (output.out if good else output.err) == path.with_suffix(".txt").read_text(encoding="utf-8")
    assert (output.err if good else output.out) == ""
    assert exit_code == (0 if good else 1)
    assert CANARY not in output.out + output.err
    assert CANARY.encode() in path.read_bytes()


def test_no_file_is_left_over() -> None:
    expected = {path.with_suffix(".txt") for path in (*GOOD, *BAD)}
    assert set(FOLDER.rglob("*.txt")) == expected
    assert len(BAD) > 50


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_every_mistake_is_one_line_of_one_form_in_line_order(path: Path) -> None:
    lines = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(rf"bad/{path.name}:(?:(\d+):)? (?:\S+: )?[a-z].*[^.]", line) for line in lines]
    assert all(found)
    numbers = [int(match[1]) for match in found if match and match[1]]
    assert numbers == sorted(numbers)
    # Words of pydantic, of Python or of OpenSSL, which mean nothing to a user.
    assert not re.search(r"Input|tuple|string|dict|instance|_ssl|Error|None|validat", "".join(lines))


@pytest.mark.parametrize(
    ("path", "mistake"),
    [("nowhere.yml", "can't be read: No such file or directory"), ("bad", "can't be read: Is a directory")],
    ids=["missing", "folder"],
)
@pytest.mark.usefixtures("in_folder")
def test_a_file_that_can_not_be_read(path: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(Path(path))
    assert raised.value.mistakes == [f"{path}: {mistake}"]


def test_a_file_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "windows.yml"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + (FOLDER / "good.yml").read_bytes().replace(b"\n", b"\r\n").replace(b"files/", f"{FOLDER}/files/".encode())
    )
    assert [source.name for source in load(path).sources] == [
        source.name for source in load(FOLDER / "good.yml").sources
    ]


def test_a_file_that_is_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "deep.yml"
    path.write_text("sources: " + "[" * 500 + "]" * 500)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert raised.value.mistakes == [f"{path}: is nested too deeply"]


def test_a_timeout_longer_than_the_interval_makes_data_live_longer() -> None:
    """Polls that fall into one that still runs are skipped, so the next good one may end only after two timeouts."""
    source = {"name": "a", "system": "prefect", "url": "http://a", "interval": "30s", "timeout": "1m"}
    assert Config.model_validate({"sources": [source]}).sources[0].stale_after == 180.0


@pytest.mark.parametrize(
    ("interval", "timeout", "least"),
    [
        ("30s", "30s", 60.0),
        ("30s", "20s", 50.0),
        ("30s", "31s", 91.0),
        ("30s", "1m", 120.0),
        ("2s", "6s", 12.0),
        ("100ms", "300ms", 0.6),
        ("200ms", "600ms", 1.2),
        ("100ms", "301ms", 0.701),
        ("1ms", "1d", 2 * 86400.0),
    ],
)
def test_how_long_data_has_to_live(interval: str, timeout: str, least: float) -> None:
    source = {"name": "a", "system": "prefect", "url": "http://a", "interval": interval, "timeout": timeout}
    (configured,) = Config.model_validate({"sources": [source]}).sources
    assert configured.least_stale_after == pytest.approx(least)
    assert configured.stale_after >= configured.least_stale_after, "the default is long enough"


def test_what_a_file_says_is_what_the_configuration_holds() -> None:
    first, second, third = load(FOLDER / "good.yml").sources
    assert isinstance(first, PrefectConfig)
    assert first.model_dump(exclude={"basic_auth", "pools", "queues", "tls_config"}) == {
        "name": "production",
        "system": "prefect",
        "url": "https://[::1]:4200/api",
        "interval": 90.0,
        "timeout": 45.0,
        "stale_after": 3600.0,
        "max_series": 1000,
        "collect": ("queues", "limits"),
        "authorization": None,
        "http_headers": {},
        "oauth2": None,
        "proxy_url": SecretStr("http://proxy:3128"),
        "no_proxy": "",
        "proxy_from_environment": False,
        "proxy_connect_header": {},
        "concurrency": 32,
        "ui_url": "https://prefect.example.org/ui",
        "holders": {"keep": 5, "show": False},
    }
    assert first.basic_auth
    assert first.basic_auth.username == "someone"
    assert first.basic_auth.password == SecretStr(f'{CANARY}: with # and "')
    assert first.tls_config.insecure_skip_verify
    names = ["team-1", "team-\n", "team-test", "team-\n-test", "x-team-"]
    assert [first.pools.admits(name) for name in names] == [True, True, False, False, False]
    assert [first.queues.admits(name) for name in ("default", "other", "new\nline")] == [False, True, True]
    assert (second.name, second.interval, second.timeout, second.stale_after) == ("24", 30.0, 30.0, 90.0)
    assert (third.name, third.url) == ('two\n"lines" é 🦆', "https://münchen.example")


def test_paths_are_relative_to_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(Path(os.path.relpath(FOLDER / "good.yml")))
    authorization = config.sources[2].authorization
    assert authorization
    files = [config.sources[0].tls_config.ca_file, authorization.credentials_file]
    assert [file.resolve() for file in files if file] == [FOLDER / "files/ca.pem", FOLDER / "files/key"]


def test_merged_keys_count() -> None:
    assert [(source.name, source.interval) for source in load(FOLDER / "good-merged.yml").sources] == [
        ("first", 10.0),
        ("second", 10.0),
        ("third", 20.0),
    ]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1ms", 0.001),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1w", 604800),
        ("1h1ms", 3600.001),
        ("365d", 31_536_000),
    ],
)
def test_durations(written: str, seconds: float) -> None:
    source = {"name": "a", "system": "cloro", "interval": written, "authorization": {"credentials": CANARY}}
    assert CloroConfig.model_validate(source).interval == seconds


def parts(settings: Settings) -> Iterator[Settings]:
    yield settings
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for one in value if isinstance(value, tuple) else [value]:
            if isinstance(one, Settings):
                yield from parts(one)


def test_every_part_is_frozen_and_shows_no_secret() -> None:
    config = load(FOLDER / "good.yml")
    found = list(parts(config))
    assert len({type(part) for part in found}) == 8
    for part in found:
        for name in type(part).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(part, name, None)
        assert CANARY not in f"{part!r} {part} {part.model_dump()} {part.model_dump_json()}"
    assert hash(config.sources[1]) == hash(load(FOLDER / "good.yml").sources[1])


KEY = {"CLORO_API_KEY": CANARY}
URL = {"PREFECT_API_URL": "http://localhost:4200/api"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (KEY, [("cloro", "https://api.cloro.dev", "Bearer", CANARY)]),
        (URL, [("prefect", "http://localhost:4200/api", None, None)]),
        (URL | {"PREFECT_API_KEY": CANARY}, [("prefect", "http://localhost:4200/api", "Bearer", CANARY)]),
        (
            URL | {"PREFECT_API_AUTH_STRING": f"someone:{CANARY}:with:colons"},
            [("prefect", "http://localhost:4200/api", "someone", f"{CANARY}:with:colons")],
        ),
        (
            URL | {"PREFECT_API_AUTH_STRING": f"someone:{CANARY}", "PREFECT_API_KEY": "not this one"},
            [("prefect", "http://localhost:4200/api", "someone", CANARY)],
        ),
        (
            URL | {"PREFECT_API_AUTH_STRING": "", "PREFECT_API_KEY": "", "CLORO_API_KEY": ""},
            [("prefect", "http://localhost:4200/api", None, None)],
        ),
        (
            {"PREFECT_API_URL": "HTTPS://Localhost:4200/Api/"},
            [("prefect", "https://localhost:4200/Api", None, None)],
        ),
        (
            {"PREFECT_API_URL": "http://localhost:4200/api/"} | KEY,
            [
                ("prefect", "http://localhost:4200/api", None, None),
                ("cloro", "https://api.cloro.dev", "Bearer", CANARY),
            ],
        ),
        (
            KEY | {"PREFECT_API_URL": "", "PREFECT_API_AUTH_STRING": "no colon"},
            [("cloro", "https://api.cloro.dev", "Bearer", CANARY)],
        ),
    ],
    ids=["cloro", "prefect", "key", "auth-string", "both", "empty", "capitals", "both-systems", "no-url"],
)
def test_the_environment(environment: dict[str, str], expected: list[tuple[str | None, ...]]) -> None:
    config = from_environment(environment)
    assert [(source.name, source.url, *_credentials(source)) for source in config.sources] == expected
    assert all(source.name == source.system for source in config.sources)
    assert CANARY not in repr(config)


def test_the_address_of_the_ui_from_the_environment() -> None:
    (source,) = from_environment(URL | {"PREFECT_UI_URL": "https://ui.example.org/prefect/"}).sources
    assert isinstance(source, PrefectConfig)
    assert source.ui_url == "https://ui.example.org/prefect"


def _credentials(source: AnySource) -> tuple[str | None, str | None]:
    if source.authorization and source.authorization.credentials:
        return source.authorization.type, source.authorization.credentials.get_secret_value()
    if source.basic_auth and source.basic_auth.password:
        return source.basic_auth.username, source.basic_auth.password.get_secret_value()
    return None, None


NOTHING = "nothing to poll: give --config.file, set PREFECT_API_URL or CLORO_API_KEY, or try --demo"
NOT_A_URL = "environment: PREFECT_API_URL: is not a URL; write it like http://host:4200/api"


UNCARRIED = "has characters that a header can't carry: it takes printable ASCII, without spaces around it"


@pytest.mark.parametrize(
    ("environment", "mistakes"),
    [
        ({}, [NOTHING]),
        ({"PREFECT_API_URL": "", "CLORO_API_KEY": "", "PREFECT_API_KEY": CANARY}, [NOTHING]),
        ({"PREFECT_API_URL": "localhost:4200"}, [NOT_A_URL]),
        ({"PREFECT_API_URL": " "} | KEY, [NOT_A_URL]),
        (
            URL | {"PREFECT_UI_URL": f"http://someone:{CANARY}@localhost:4200"},
            [
                "environment: PREFECT_UI_URL: has credentials, which don't belong in a URL;"
                " put them under basic_auth or authorization"
            ],
        ),
        (
            {"PREFECT_API_URL": f"http://someone:{CANARY}@localhost:4200/api"},
            [
                "environment: PREFECT_API_URL: has credentials, which don't belong in a URL;"
                " put them under basic_auth or authorization"
            ],
        ),
        (
            {"PREFECT_API_URL": "https://app.prefect.cloud/account/1a/workspace/2b"},
            [
                "environment: PREFECT_API_URL: not the address of an API; did you mean"
                " https://api.prefect.cloud/api/accounts/1a/workspaces/2b?"
            ],
        ),
        (
            URL | {"PREFECT_API_AUTH_STRING": "\udcff"},
            ["environment: PREFECT_API_AUTH_STRING: has a character that is not Unicode"],
        ),
        (
            URL | {"PREFECT_API_KEY": f"{CANARY}é", "CLORO_API_KEY": f"{CANARY}\nX-Injected: 1"},
            [f"environment: PREFECT_API_KEY: {UNCARRIED}", f"environment: CLORO_API_KEY: {UNCARRIED}"],
        ),
        (
            URL | {"PREFECT_CLIENT_CUSTOM_HEADERS": json.dumps({"X-A": f"{CANARY}\0", "authorization": CANARY})},
            [
                f"environment: PREFECT_CLIENT_CUSTOM_HEADERS: X-A: {UNCARRIED}",
                "environment: PREFECT_CLIENT_CUSTOM_HEADERS: authorization: is a header that can't be set here",
            ],
        ),
        (
            URL | {"PREFECT_CLIENT_CUSTOM_HEADERS": json.dumps([CANARY])},
            ['environment: PREFECT_CLIENT_CUSTOM_HEADERS: is not a JSON object of texts, like {"X-Name": "value"}'],
        ),
        (
            URL | {"PREFECT_API_TLS_INSECURE_SKIP_VERIFY": CANARY},
            ["environment: PREFECT_API_TLS_INSECURE_SKIP_VERIFY: is neither true nor false"],
        ),
        (
            URL | {"PREFECT_API_SSL_CERT_FILE": "/nowhere"},
            ["environment: PREFECT_API_SSL_CERT_FILE: can't read the file /nowhere: No such file or directory"],
        ),
        (
            URL | {"PREFECT_API_KEY": f"\udcff{CANARY}", "CLORO_API_KEY": f"\udcff{CANARY}"},
            [
                "environment: PREFECT_API_KEY: has a character that is not Unicode",
                "environment: CLORO_API_KEY: has a character that is not Unicode",
            ],
        ),
        (
            {"PREFECT_API_URL": "\udcff", "PREFECT_API_AUTH_STRING": f"\udcff:\udcff{CANARY}"},
            [
                NOT_A_URL,
                "environment: PREFECT_API_AUTH_STRING: has a character that is not Unicode",
                "environment: PREFECT_API_AUTH_STRING: has a character that is not Unicode",
            ],
        ),
    ],
    ids=[
        "nothing",
        "empty",
        "url",
        "blank-url",
        "credentials-in-url-of-ui",
        "credentials-in-url",
        "page-of-cloud",
        "no-colon-bytes",
        "not-for-a-header",
        "headers",
        "no-headers",
        "boolean",
        "no-file",
        "bytes",
        "all-bytes",
    ],
)
def test_mistakes_in_the_environment(environment: dict[str, str], mistakes: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        from_environment(environment)
    assert raised.value.mistakes == mistakes
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_names_of_systems_choose_their_configuration(system: str) -> None:
    source: dict[str, Any] = {
        "name": "a",
        "system": system,
        "url": "http://localhost",
        "authorization": {"credentials": CANARY},
    }
    assert type(Config.model_validate({"sources": [source]}).sources[0]) is SYSTEMS[system]
