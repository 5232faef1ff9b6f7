"""Log lines: one per event, in logfmt or JSON, on standard error; those of the libraries too."""

import logging
import select
import sys
from typing import Literal, TextIO

import structlog

LogFormat = Literal["logfmt", "json"]
LEVELS = ("debug", "info", "warn", "error")

_LIBRARIES = {
    "apscheduler": logging.ERROR,  # would tell of each skipped poll, which the poller does
    "httpx": logging.WARNING,  # would tell of each request
    "httpcore": logging.WARNING,
    "uvicorn": logging.ERROR,  # would tell of each request that is no HTTP: a stranger could fill the disk
    "asyncio": logging.ERROR,  # would tell of each client of TLS that hangs up while it is answered: the same
}
_LOGFMT = structlog.processors.LogfmtRenderer(key_order=["ts", "level", "msg"], bool_as_flag=False)


class _NeverWaits(logging.StreamHandler[TextIO]):
    """Loses lines that their reader leaves no room for, and tells how many: to wait for him would hold up everything.

    A pipe that has room at all has it for 4,096 bytes, which only a traceback exceeds.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0
        self._poll: select.poll | None = select.poll()
        try:
            self._poll.register(stream, select.POLLOUT)
        except (TypeError, ValueError):  # there is none, or it is in memory
            self._poll = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, if there is room for it."""
        if self._lost and self._has_room():
            told = f"{self._lost} log line(s) were lost, since nobody had read those before them"
            self._lost = 0
            super().emit(logging.LogRecord(__name__, logging.WARNING, __file__, 0, told, None, None))
        if self._has_room():
            super().emit(record)
        else:
            self._lost += 1

    def _has_room(self) -> bool:
        return not self._poll or bool(self._poll.poll(0))


def configure(level: str, log_format: LogFormat, stream: TextIO = sys.stderr) -> None:
    """Send all log lines of at least `level` to `stream`."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.EventRenamer("msg"),
    ]
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer() if log_format == "json" else _logfmt
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _NeverWaits(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name, at_least in _LIBRARIES.items():
        logging.getLogger(name).setLevel(max(at_least, threshold))


def _logfmt(logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict) -> str:
    """A line of logfmt; what would break it or drive the terminal is escaped, for upstream's names may hold that."""
    line = _LOGFMT(logger, method, event)
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)
