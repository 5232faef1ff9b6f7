"""Variables of Prefect's own client: they mean here what they mean to it."""

import base64
import subprocess

import pytest

from exporter.config import ABOUT
from tests.harness.command import outcome, upstream_answer
from tests.harness.programs import prefect_python
from tests.harness.upstream import serving

GOOD = upstream_answer({"queue": 3})
URL = "PREFECT_API_URL"


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"PREFECT_API_AUTH_STRING": "user:password\n"}, basic("user:password")),
        ({"PREFECT_API_AUTH_STRING": "user:\r\n"}, basic("user:")),
        ({"PREFECT_API_AUTH_STRING": "user"}, basic("user")),
        ({"PREFECT_API_AUTH_STRING": "passwört"}, basic("passwört")),
        ({"PREFECT_API_AUTH_STRING": ":pässwort"}, basic(":pässwort")),
        ({"PREFECT_API_KEY": "pnu_key\n"}, "Bearer pnu_key"),
    ],
)
def test_the_environment_is_read_as_prefects_client_reads_it(variables: dict[str, str], header: str) -> None:
    with serving(GOOD) as upstream:
        variables[URL] = f"{upstream.url}/api\n"
        variables["PREFECT_CLIENT_CUSTOM_HEADERS"] = '{"CF-Access-Client-Id": "id", "X-B": "b"}\n'
        code, output = outcome("--dry-run", **variables)
    assert code == 0, output
    for request in upstream.requests:
        assert request.headers["authorization"] == header
        assert (request.headers["cf-access-client-id"], request.headers["x-b"]) == ("id", "b")


HONOURED = {"URL", "AUTH_STRING", "KEY", "SSL_CERT_FILE", "TLS_INSECURE_SKIP_VERIFY"}


NOT_OF_THE_CONNECTION = {"PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED", "PREFECT_CLIENT_METRICS"}


def test_every_setting_of_the_newest_client_is_known() -> None:
    """One that a newer Prefect brings is either used, warned of, or has nothing to do with the connection."""
    program = """
from prefect.settings.models.api import APISettings
from prefect.settings.models.client import ClientSettings
for prefix, model in (("PREFECT_API_", APISettings), ("PREFECT_CLIENT_", ClientSettings)):
    for name in model.model_fields:
        print(prefix + name.upper())
"""
    done = subprocess.run([prefect_python(), "-c", program], capture_output=True, text=True, check=True, timeout=120)
    honoured = {f"PREFECT_API_{name}" for name in HONOURED} | {"PREFECT_CLIENT_CUSTOM_HEADERS"}
    of_profiles = {"PREFECT_PROFILE", "PREFECT_PROFILES_PATH"}
    assert set(done.stdout.split()) == honoured | NOT_OF_THE_CONNECTION | (
        ABOUT["prefect"].ignored_environment - of_profiles
    )
