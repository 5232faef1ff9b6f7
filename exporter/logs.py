"""Log lines: one per event, in logfmt or JSON, on standard error; those of the libraries too."""

import io
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
    """Loses lines that can't be written, and tells how many: to wait for a reader would hold up everything.

    A pipe that has room at all has it for 4,096 bytes, which only a traceback exceeds.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(_unbuffered(stream))
        self._lost = 0
        self._poll: select.poll | None = select.poll()
        try:
            self._poll.register(stream, select.POLLOUT)
        except (TypeError, ValueError):  # there is none, or it is in memory
            self._poll = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, if there is room for it, after one that counts the lost lines."""
        if lost := self._lost:
            self._lost = 0
            told = f"{lost} log line(s) were lost, since they could not be written"
            self._write(logging.makeLogRecord({"levelno": logging.WARNING, "levelname": "WARNING", "msg": told}))
            if self._lost:
                self._lost = lost + 1
                return
        self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        if self._poll and not self._poll.poll(0):
            self._lost += 1
        else:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  as logging has it
        """Count a line that could not be written; any other error is one of ours."""
        if isinstance(sys.exc_info()[1], OSError):
            self._lost += 1
        else:
            super().handleError(record)


def _unbuffered(stream: TextIO) -> TextIO:
    """The same file, without a buffer: what can't be written would stay there, and have Python end with status 120."""
    try:
        file = io.FileIO(stream.fileno(), "w", closefd=False)
    except (AttributeError, OSError):  # there is none, or it is in memory
        return stream
    return io.TextIOWrapper(file, encoding=stream.encoding, errors=stream.errors, write_through=True)


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
