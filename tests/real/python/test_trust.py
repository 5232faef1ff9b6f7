"""Which certificates are trusted does not depend on the version of Python."""

import asyncio
import json
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.harness.certificates import authority, certificate, expired, self_signed
from tests.harness.command import environment
from tests.harness.process import PATIENCE, accepts, free_port, running
from tests.harness.programs import ROOT, python
from tests.harness.upstream import answer, serve

VERSIONS = ("3.11", "3.12", "3.13")
STATUS = {"queuedTasks": 1, "processingTasks": 0, "concurrency": None}
TRUSTED = {
    # name: (certificates that the server sends, certificates that are trusted)
    "by-root": (["leaf"], "ca"),
    "without-key-identifier": (["no-aki"], "ca"),
    "intermediate-sent": (["below", "intermediate"], "ca"),
    "intermediate-trusted": (["below"], "intermediate"),
    "intermediate-trusted-and-sent": (["below", "intermediate"], "intermediate"),
    "leaf-trusted": (["leaf"], "leaf"),
    "leaf-below-trusted": (["below"], "below"),
    "self-signed": (["alone"], "alone"),
}
REFUSED = {
    "another-root": (["leaf"], "other"),
    "intermediate-missing": (["below"], "ca"),
    "expired": (["expired"], "ca"),
    "another-name": (["named"], "ca"),
    "another-leaf": (["leaf"], "no-aki"),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority(folder)
    authority(folder, "other")
    authority(folder, "intermediate", by="ca")
    certificate(folder, "leaf")
    certificate(folder, "no-aki", "IP:127.0.0.1", "authorityKeyIdentifier=none", "subjectKeyIdentifier=none")
    certificate(folder, "below", by="intermediate")
    certificate(folder, "named", "DNS:elsewhere.example")
    expired(folder, "expired")
    self_signed(folder, "alone")
    return folder


@pytest.fixture(scope="module", params=VERSIONS)
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The exporter's command in an environment of a version of Python."""
    if request.param == "{}.{}".format(*sys.version_info[:2]):
        return [sys.executable, "-m", "exporter"]
    folder = tmp_path_factory.mktemp(f"python-{request.param}")
    subprocess.run([python(request.param), "-m", "venv", "--without-pip", folder], check=True, timeout=PATIENCE)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    done = subprocess.run(
        [*pip, "install", "--quiet", "--no-compile", "--editable", str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [str(folder / "bin" / "python"), "-m", "exporter"]


def chain(folder: Path, names: list[str]) -> ssl.SSLContext:
    """What serves the first certificate, with the others sent after it."""
    file = folder / f"chain-{'-'.join(names)}.pem"
    file.write_text("".join((folder / f"{name}.pem").read_text() for name in names))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, folder / f"{names[0]}.key")
    return context


@asynccontextmanager
async def sources(folder: Path) -> AsyncIterator[list[dict[str, object]]]:
    """A source for each case, and their servers."""
    async with AsyncExitStack() as servers:
        found: list[dict[str, object]] = []
        for name, (sent, trusted) in (TRUSTED | REFUSED).items():
            server = await servers.enter_async_context(serve(lambda _: answer(STATUS), tls=chain(folder, sent)))
            tls = {"ca_file": str(folder / f"{trusted}.pem")}
            source = {"name": name, "system": "cloro", "url": server.url, "tls_config": tls}
            found.append({**source, "authorization": {"credentials": "key"}})
        yield found


async def test_servers_are_trusted_alike(command: list[str], certificates: Path, tmp_path: Path) -> None:
    async with sources(certificates) as listed:
        path = tmp_path / "exporter.yml"
        path.write_text(json.dumps({"sources": listed}))
        process = await asyncio.create_subprocess_exec(
            *command, "--dry-run", f"--config.file={path}", stdout=-1, stderr=-1, env=environment(), cwd=tmp_path
        )
        output = b"".join(await process.communicate()).decode()
    outcomes = dict(re.findall(r"^(\S+) +cloro +(success|failure) ", output, re.MULTILINE))
    assert outcomes == dict.fromkeys(TRUSTED, "success") | dict.fromkeys(REFUSED, "failure"), output
    assert output.count("failed (tls)") == len(REFUSED)


def test_clients_are_trusted_alike(command: list[str], certificates: Path, tmp_path: Path) -> None:
    """One file trusts the root of some clients, the intermediate of others, and one client's own certificate."""
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(
        "".join((certificates / f"{name}.pem").read_text() for name in ("intermediate", "no-aki", "alone"))
    )
    web = tmp_path / "web.yml"
    settings = {"cert_file": str(certificates / "leaf.pem"), "key_file": str(certificates / "leaf.key")}
    settings |= {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": str(trusted)}
    web.write_text(json.dumps({"tls_server_config": settings}))
    port = free_port()
    arguments = ["--demo", f"--web.listen-address=127.0.0.1:{port}", f"--web.config.file={web}"]
    with running([*command, *arguments], log=tmp_path / "log", env=environment(), cwd=tmp_path) as process:
        process.wait_until(accepts(port), what="it listens")

        def is_let_in(name: str) -> bool:
            context = ssl.create_default_context(cafile=certificates / "ca.pem")
            context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
            try:
                url = f"https://127.0.0.1:{port}/-/healthy"
                return httpx.get(url, verify=context, trust_env=False, timeout=PATIENCE).is_success
            except httpx.HTTPError:
                return False

        let_in = {name for name in ("below", "no-aki", "alone", "leaf", "expired") if is_let_in(name)}
    assert let_in == {"below", "no-aki", "alone"}
