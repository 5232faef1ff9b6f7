"""The log's lines about polls: one where something has changed since the poll before, and not one for each poll."""

import structlog

from exporter.model import first_of
from exporter.polling.outcome import Ended, Failed
from exporter.polling.store import SourceState
from exporter.sources.base import without_request_id

log = structlog.get_logger()


def write_ended(before: SourceState, after: SourceState, ended: Ended) -> None:
    """Tell how a poll of a source ended, where that differs from `before`: what goes on is logged as `debug`."""
    _write_retirement(before, after)
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


def _write_retirement(before: SourceState, after: SourceState) -> None:
    retirement = first_of(after.retirements.values())
    if not after.retirements or retirement == first_of(before.retirements.values()):
        return
    dates = {"deprecation": retirement.deprecation, "sunset": retirement.sunset}
    log.warning(
        "upstream deprecates endpoints that are read",
        source=after.name,
        endpoints=",".join(sorted(after.retirements)),
        **{name: date.isoformat() for name, date in dates.items() if date},
        link=retirement.link,
    )


def _trouble(state: SourceState) -> object:
    """Return what was wrong with the last poll, so that the same trouble is logged once; None if nothing was."""
    if failure := state.failure:
        return failure.reason, without_request_id(failure.message)
    return state.left_out or None
