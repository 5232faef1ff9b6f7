"""Parts of TLS settings that both sides have: versions, PEM that is given inline, and which chains are trusted."""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator

VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
"""The versions that can be set, by the names that Prometheus has for them."""

TRUST: Final = ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
"""The flags that every context gets: a chain is trusted when it ends in any certificate that is configured, as in Go.

Python's own choice depends on its version. 3.13 refuses certificates that Go, curl and older Pythons accept, such as
one without an Authority Key Identifier. Before 3.13, an intermediate or the server's own certificate is no anchor.
"""


def one_of(*words: str, refused: Mapping[str, str] | None = None) -> AfterValidator:
    """One of these words; those that are `refused` although Prometheus has them say why."""

    def check(value: str) -> str:
        if why := (refused or {}).get(value):
            raise ValueError(f"can't be {value}, {why}; use {', '.join(words)}")
        if value not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return value

    return AfterValidator(check)


Version = Annotated[str, one_of(*VERSIONS, refused=dict.fromkeys(("TLS10", "TLS11"), "which is no longer safe"))]


@contextmanager
def as_file(text: str | None, path: Path | None) -> Iterator[str]:
    """A path under which `text` can be read, which is never on a disk; or `path`. Raises `OSError`."""
    if text is None:
        yield str(path)
        return
    descriptor = os.memfd_create("pem")
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
