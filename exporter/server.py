"""uvicorn as a part of this program: on sockets of ours, stopped by us, and without handlers for signals."""

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette


class Server(uvicorn.Server):
    """Serves an application until `stop`; then running requests have `graceful_seconds` to end."""

    def __init__(self, application: Starlette, graceful_seconds: int) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=graceful_seconds,
            )
        )

    def stop(self) -> None:
        """Accept no more requests, and end when those that run have ended."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: uvicorn would raise them again after it has stopped, and the exit code with them."""
        yield
