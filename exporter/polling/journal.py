"""The log's lines about polls: one where something has changed since the poll before, and not one for each poll."""

import structlog

from exporter.polling.outcome import Ended, Failed
from exporter.polling.store import SourceState

log = structlog.get_logger()


def write_ended(before: SourceState, after: SourceState, ended: Ended) -> None:
    """Tell how a poll of a source ended, where that differs from `before`: what goes on is logged as `debug`."""
    trouble = _trouble(after)
    write = log.debug if trouble == _trouble(before) else log.warning
    if isinstance(ended, Failed):
        write("poll failed", source=after.name, reason=ended.failure.reason, error=ended.failure.message)
        return
    if after.unsupported != before.unsupported:
        if after.unsupported:
            log.warning("not supported by this server", source=after.name, parts=",".join(after.unsupported))
        else:
            log.info("everything is supported by this server now", source=after.name)
    if left_out := ended.published.snapshot.unreadable:
        first = left_out[0]
        write(
            "left out of the snapshot",
            source=after.name,
            count=len(left_out),
            part=first.part,
            pool=first.pool,
            queue=first.queue,
            reason=first.reason,
            error=first.message,
        )
    elif _trouble(before):
        log.info("poll succeeded again", source=after.name)


def _trouble(state: SourceState) -> object:
    """What was wrong with the last poll, so that the same trouble is told once; None where nothing was."""
    return state.failure or state.left_out or None
