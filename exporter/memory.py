"""Memory that was freed goes back to the system."""

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
"""Of mallopt(3)."""
_LARGE_BYTES: Final = 128 * 1024
"""What the threshold is at first."""


def return_large_blocks() -> None:
    """Have the C library give large blocks back as soon as they are freed.

    glibc does so at first. But with each large block that is freed it raises the threshold, up to 32 MiB, and puts
    later ones among the small. Then the texts of polls lie between the buffers of connections, and of the memory that
    is in use at a peak most stays with the process. Other C libraries have no such threshold.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
