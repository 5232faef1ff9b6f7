"""What one poll of every source found, cost and missed, as text for a terminal."""

from collections.abc import Callable, Iterable, Sequence

from exporter.model import Queue
from exporter.store import SourceState


def report(states: Sequence[SourceState], requests: Callable[[str], int]) -> str:
    """Tables of the sources and of their queues, then a line for all that could not be read.

    `requests` tells how many requests a source, by its name, has sent.
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
        parts.append(_table(("SOURCE", "POOL", "QUEUE", "ACTIVE", "LIMIT", "HOLDERS", "QUEUED", "OLDEST", ""), queues))
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
        " ".join(f"{of_state.holders} {state}" for state, of_state in queue.holders.items() if of_state.holders),
        sum(queue.queued.values()) if queue.queued else None,
        f"{max(durations):.0f}s" if durations else None,
        "paused" if queue.paused else "",
    )


def _troubles(state: SourceState) -> Iterable[str]:
    if state.failure:
        yield f"{state.name} failed ({state.failure.reason}): {state.failure.message}"
    if state.published:
        for one in state.published.snapshot.unreadable:
            what = f"queue {one.queue!r} of pool {one.pool!r}" if one.queue else f"the queues of pool {one.pool!r}"
            yield f"{state.name} left out {what} ({one.reason}): {one.message}"
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
