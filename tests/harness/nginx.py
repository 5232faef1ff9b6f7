"""Debian's nginx as a child process, in front of the exporter or of an upstream server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.process import accepts, running
from tests.harness.programs import program


@contextmanager
def nginx(directory: Path, servers: str, port: int) -> Iterator[None]:
    """Run nginx without anything of the machine's configuration, from when it accepts connections on `port`.

    `servers` are the blocks within `http`.
    """
    with running(command(directory, servers), log=directory / "nginx.log") as process:
        process.wait_until(accepts(port), what=f"nginx accepts connections on port {port}")
        yield


def command(directory: Path, servers: str) -> list[str | Path]:
    """Return the command that runs nginx in a folder; with `-t` it checks the blocks only."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {directory / kind};" for kind in kinds)
    config.write_text(f"""
daemon off; master_process off; pid {directory / "nginx.pid"}; error_log stderr;
events {{}}
http {{
  access_log off; {temporary}
{servers}
}}
""")
    return [program("nginx"), "-e", "stderr", "-p", directory, "-c", config]
