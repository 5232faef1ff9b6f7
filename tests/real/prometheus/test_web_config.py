"""Prometheus as a client of `--web.config.file`."""

import json
from pathlib import Path
from typing import Any

from tests.harness.certificates import authority, certificate
from tests.harness.command import COMMAND
from tests.harness.process import free_port, running
from tests.harness.prometheus import PrometheusServer
from tests.harness.web import HASH, PASSWORD


def test_prometheus_comes_in_with_its_certificate_and_password(tmp_path: Path) -> None:
    """And without either it does not."""
    authority(tmp_path)
    certificate(tmp_path, "server")
    certificate(tmp_path, "client", "DNS:prometheus.example")
    tls = {
        "cert_file": "server.pem",
        "key_file": "server.key",
        "client_ca_file": "ca.pem",
        "client_auth_type": "RequireAndVerifyClientCert",
        "min_version": "TLS13",
    }
    path = tmp_path / "web.yml"
    settings = {"tls_server_config": tls, "basic_auth_users": {"alice": HASH}, "http_server_config": {"http2": False}}
    path.write_text(json.dumps(settings), encoding="utf-8")
    (tmp_path / "password").write_text(PASSWORD, encoding="utf-8")
    client = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
    ways: dict[str, dict[str, Any]] = {
        "right": {"tls_config": client, "basic_auth": {"username": "alice", "password_file": "password"}},
        "no-certificate": {"tls_config": {"ca_file": "ca.pem"}, "basic_auth": {"username": "alice", "password": "x"}},
        "wrong-password": {"tls_config": client, "basic_auth": {"username": "alice", "password": "x"}},
        "no-password": {"tls_config": client},
    }
    port = free_port()
    configs = [
        {"job_name": name, "scheme": "https", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}], **way}
        for name, way in ways.items()
    ]
    flags = (f"--web.listen-address=127.0.0.1:{port}", "--demo", "--log.level=debug", "--web.config.file", path)
    with (
        running([*COMMAND, *flags], log=tmp_path / "exporter.log") as command,
        PrometheusServer(tmp_path, config={"scrape_configs": configs}) as prometheus,
    ):
        up = prometheus.wait_for(
            "sum by (job) (up)", lambda found: dict_of(found).get("right") == 1 and len(found) == 4
        )
        assert dict_of(up) == {"right": 1, "no-certificate": 0, "wrong-password": 0, "no-password": 0}
        prometheus.wait_for('concurrency_queue_active_slots{job="right"}')
        errors = {target["labels"]["job"]: target["lastError"] for target in prometheus.targets()}
        assert errors["wrong-password"] == errors["no-password"] == "server returned HTTP status 401 Unauthorized"
        assert errors["no-certificate"]
        assert "HTTP status" not in errors["no-certificate"]
        assert "Traceback" not in command.log_text()
        for secret in (PASSWORD, HASH):
            assert secret not in command.log_text()


def dict_of(vector: list[tuple[dict[str, str], float]]) -> dict[str, float]:
    return {labels["job"]: value for labels, value in vector}
