"""The command `concurrency-exporter`, also as `python -m exporter`: it can be stopped before all of it is imported."""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command; returns its exit code. See `exporter.cli.main`."""
    # A server that is told to stop has done its work; a check or a dry run has not.
    serves = not {"--config.check", "--dry-run"}.intersection(sys.argv)

    def end(number: int, _: FrameType | None) -> None:
        # Not by an exception, which an import could catch.
        os._exit(0 if serves else 128 + number)

    if serves:
        # It would end the process until there is a handler for it, and then there is nothing to reload yet.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # As PID 1 a signal without a handler is ignored. The image has these blocked until there is one.
    stops = (signal.SIGTERM, signal.SIGINT)
    for number in stops:
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)
    from exporter import cli  # noqa: PLC0415  it takes most of a second

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
