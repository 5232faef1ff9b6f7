"""Certificates for tests, made by openssl."""

import subprocess
from pathlib import Path

_KEY = ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]


def authority(folder: Path, name: str = "ca") -> Path:
    """A certificate that can sign others, in `NAME.pem`; its key is in `NAME.key`."""
    extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    _openssl("req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}", *extensions, *_files(folder, name))
    return folder / f"{name}.pem"


def certificate(folder: Path, name: str, names: str = "IP:127.0.0.1", *, by: str = "ca") -> tuple[Path, Path]:
    """A certificate for `names` (its subjectAltName) signed by the authority `by`, and its key."""
    signed_by = ["-CA", str(folder / f"{by}.pem"), "-CAkey", str(folder / f"{by}.key")]
    extensions = ["-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE"]
    _openssl(
        "req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}", *signed_by, *extensions, *_files(folder, name)
    )
    return folder / f"{name}.pem", folder / f"{name}.key"


def _files(folder: Path, name: str) -> list[str]:
    return ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=20)
