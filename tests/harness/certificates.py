"""Certificates for tests, made by openssl."""

import subprocess
from pathlib import Path

from tests.harness.process import PATIENCE

_KEY = ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]


def authority(folder: Path, name: str = "ca", *, by: str | None = None) -> Path:
    """A certificate that can sign others, in `NAME.pem`; its key is in `NAME.key`. With `by`, an intermediate."""
    signed_by = ["-CA", str(folder / f"{by}.pem"), "-CAkey", str(folder / f"{by}.key")] if by else []
    extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    _openssl(
        "req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}", *signed_by, *extensions, *_files(folder, name)
    )
    return folder / f"{name}.pem"


def certificate(folder: Path, name: str, names: str = "IP:127.0.0.1", *more: str, by: str = "ca") -> tuple[Path, Path]:
    """A certificate for `names` (its subjectAltName) signed by the authority `by`, and its key.

    `more` are further extensions.
    """
    signed_by = ["-CA", str(folder / f"{by}.pem"), "-CAkey", str(folder / f"{by}.key")]
    extensions = ["-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE"]
    extensions += [word for extension in more for word in ("-addext", extension)]
    _openssl(
        "req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}", *signed_by, *extensions, *_files(folder, name)
    )
    return folder / f"{name}.pem", folder / f"{name}.key"


def self_signed(folder: Path, name: str, names: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A certificate for `names` that nobody else has signed, and its key."""
    extension = ["-addext", f"subjectAltName={names}"]
    _openssl("req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}", *extension, *_files(folder, name))
    return folder / f"{name}.pem", folder / f"{name}.key"


def expired(folder: Path, name: str, names: str = "IP:127.0.0.1", *, by: str = "ca") -> tuple[Path, Path]:
    """The same, but it has expired a day ago."""
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={names}\n")
    _openssl("req", "-new", *_KEY, "-subj", f"/CN={name}", "-keyout", str(folder / f"{name}.key"), "-out", str(request))
    signed_by = ["-CA", str(folder / f"{by}.pem"), "-CAkey", str(folder / f"{by}.key"), "-extfile", str(extensions)]
    _openssl("x509", "-req", "-in", str(request), "-days", "-1", *signed_by, "-out", str(folder / f"{name}.pem"))
    return folder / f"{name}.pem", folder / f"{name}.key"


def _files(folder: Path, name: str) -> list[str]:
    return ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=PATIENCE)
