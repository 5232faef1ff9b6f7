"""What one poll of every source found, cost and missed, as text for a terminal."""

from collections.abc import Callable, Iterable, Sequence

from exporter import views
from exporter.model import Queue
from exporter.polling.store import SourceState


def report(states: Sequence[SourceState], requests: Callable[[str], int], *, holders: bool = False) -> str:
    """Tables of the sources and of their queues, then a line for all that could not be read.

    `requests` tells how many requests a source, by its name, has sent. With `holders` there is a table of the tasks
    that hold slots, of each queue the one first that has been in its state for longest.
    """
    sources = [
        (
            state.name,
            state.system,
            state.outcome or "",
            len(state.published.snapshot.pools) if state.published else None,
            len(state.published.snapshot.queues) if state.published else None,
            state.published.rendered.series if state.published else None,
            requests(state.name),
            f"{state.duration or 0:.2f}",
        )
        for state in states
    ]
    queues = [
        _queue_row(state.name, queue)
        for state in states
        if state.published
        for queue in sorted(state.published.snapshot.queues, key=lambda queue: (queue.pool, queue.name))
    ]
    parts = [_table(("SOURCE", "SYSTEM", "OUTCOME", "POOLS", "QUEUES", "SERIES", "REQUESTS", "SECONDS"), sources)]
    if queues:
        header = ("SOURCE", "POOL", "QUEUE", "ACTIVE", "LIMIT", "HOLDERS", "OLDEST", "QUEUED", "WAITED", "WHY", "")
        parts.append(_table(header, queues))
    if holders and (rows := list(_holder_rows(states))):
        parts.append(_table(("SOURCE", "POOL", "QUEUE", "STATE", "SINCE", "NAME", "DETAILS", "ID", "LINK"), rows))
    if limits := [row for state in states for row in _limit_rows(state)]:
        parts.append(_table(("SOURCE", "KIND", "LIMIT", "ACTIVE", "SLOTS", ""), limits))
    if troubles := [line for state in states for line in _troubles(state)]:
        parts.append("\n".join(troubles))
    return "\n\n".join(parts)


def _queue_row(source: str, queue: Queue) -> tuple[object, ...]:
    durations = [seconds for of_state in queue.holders.values() for seconds in of_state.seconds]
    return (
        source,
        queue.pool,
        queue.name,
        queue.active_slots,
        queue.slot_limit,
        " ".join(f"{of_state.count} {state}" for state, of_state in queue.holders.items() if of_state.count),
        _seconds(max(durations, default=None)),
        sum(queue.queued.values()) if queue.queued else None,
        _seconds(queue.longest_wait),
        _why(queue),
        "paused" if queue.paused else "",
    )


def _why(queue: Queue) -> str:
    if queue.why is None:
        return ""
    reason, tasks = queue.why
    return f"{tasks} of {sum(queue.blocked.values())}: {reason}"


def _holder_rows(states: Sequence[SourceState]) -> Iterable[tuple[object, ...]]:
    for view in sorted(views.queues(states), key=lambda view: (view.origin.source, view.queue.pool, view.queue.name)):
        for state, holder in view.oldest_holders:
            details = " ".join(f"{word}={value}" for word, value in holder.details.items())
            name, link = holder.name or None, holder.url or ""
            where = (view.origin.source, view.queue.pool, view.queue.name)
            yield *where, state, _seconds(holder.seconds), name, details, holder.id, link
        named = len(view.oldest_holders)
        if view.holders and named and view.holders > named:
            yield (
                view.origin.source,
                view.queue.pool,
                view.queue.name,
                "",
                "",
                f"{view.holders - named} more",
                "",
                "",
                "",
            )


def _limit_rows(state: SourceState) -> Iterable[tuple[object, ...]]:
    for limit in (
        sorted(state.published.snapshot.limits, key=lambda one: (one.kind, one.name)) if state.published else ()
    ):
        off = "" if limit.active else "not enforced"
        yield state.name, limit.kind, limit.name, limit.active_slots, limit.slot_limit, off


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}s"


def _troubles(state: SourceState) -> Iterable[str]:
    if state.failure:
        yield f"{state.name} failed ({state.failure.reason}): {state.failure.message}"
    if state.published:
        for one in state.published.snapshot.unreadable:
            yield f"{state.name} left out {one.what} ({one.reason}): {one.message}"
        for part in state.published.snapshot.unsupported:
            yield f"{state.name} has no {part}: this server does not support it"
        if dropped := state.published.rendered.series_dropped:
            yield f"{state.name} has {dropped} series more than max_series; they are not published"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as they have to be: numbers to the right, what is unknown as a dash."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = [all(isinstance(row[column], int | None) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    # A queue's name may hold what would break the table or drive the terminal.
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(value))
