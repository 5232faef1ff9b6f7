"""What the command prints on its standard output and standard error, other than its log."""

import io
import os
import sys
from typing import TextIO


def say(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """Print to standard output, or to the stream, at once.

    A reader who stops early, such as `head`, has seen what he wanted: the rest is dropped, and the exit status stays
    what it is. Raises `SystemExit` with 1 where standard output can't be written for another reason.
    """
    target = stream or sys.stdout
    if target is None:  # closed by whoever started us
        return
    if isinstance(target, io.TextIOWrapper):
        # Names of queues hold characters that not every locale has.
        target.reconfigure(errors="backslashreplace")
    try:
        print(text, file=target, end=end, flush=True)
    except OSError as error:
        _drop(target)
        if target is sys.stdout and not isinstance(error, BrokenPipeError):
            say(f"can't write to standard output: {error.strerror}", sys.stderr)
            raise SystemExit(1) from None


def _drop(stream: TextIO) -> None:
    """Let what the stream still holds go nowhere: at exit, Python would try again, and end with status 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
