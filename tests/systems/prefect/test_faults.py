"""Faults of a part of a Prefect server: what is left out of the snapshot, and when the whole poll fails."""

import re
from typing import Any, Final

import pytest

from exporter.model import FailureReason
from tests.harness.cases import CASES, Answers, by_path
from tests.harness.connections import hang_up
from tests.harness.inprocess import FAR, SLOW, OneSource, poll_until_late
from tests.harness.upstream import TOO_LARGE, Answer, Request, answer, never, serve
from tests.systems.prefect.case import A_QUEUES, B_QUEUES, ONE, POOLS, THREE, TWO, pool, queue, run, status


def paged(*pages: bytes) -> Answer:
    """The pages of a queue's status, the last one for ever."""

    def page(request: Request) -> bytes:
        number: int = request.json["page"]
        return pages[min(number, len(pages)) - 1]

    return page


def repeated(request: Request) -> bytes:
    """The status of a queue whose pages all have the same holders."""
    size = request.json.get("limit", 20)
    return answer(status(*(run(11 + number) for number in range(size)), limit=size, pages=2**53))


def listed(*pages: bytes, limit: int = 2) -> Answer:
    """The pages of a listing of a server that gives no more than `limit` rows at a time."""

    def page(request: Request) -> bytes:
        if request.json["limit"] > limit:
            return answer({"detail": f"Invalid limit: must be less than or equal to {limit}."}, 422)
        number: int = -(-request.json["offset"] // limit)
        return pages[min(number, len(pages) - 1)]

    return page


Left = list[tuple[str, str, FailureReason]]

PARTIAL: Final[dict[str, tuple[Answers, Left, str, dict[str, Any]]]] = {
    "500": ({ONE: answer({}, 500)}, [("a", "one", "http_status")], "500 Internal Server Error", {}),
    "html": ({ONE: answer(b"<html>")}, [("a", "one", "contract")], "Invalid JSON", {}),
    "17-MiB": ({ONE: TOO_LARGE}, [("a", "one", "too_large")], "larger than 16 MiB", {}),
    "hangs": ({ONE: never}, [("a", "one", "timeout")], f"no complete answer within {FAR / 3:g}s", SLOW),
    "page-2-fails": (
        {ONE: paged(answer(status(run(11), run(12), run(13), limit=3)), answer({}, 500))},
        [("a", "one", "http_status")], "500 ", {},
    ),
    "endless": ({ONE: repeated}, [("a", "one", "contract")], "bring no further rows", {}),
    "pages-of-one": (
        {ONE: answer(status(run(11), limit=1))}, [("a", "one", "contract")], "pages of 1 rows are too small", {}
    ),
    "more-than-a-page": (
        {ONE: answer(status(run(11), run(12), limit=1))}, [("a", "one", "contract")], "2 rows, and 1 were asked for", {}
    ),
    "too-old": ({ONE: answer({"detail": "Not Found"}, 404)}, [("a", "one", "http_status")], "3.6.23 or newer?", {}),
    "two": (
        {ONE: answer({}, 500), THREE: answer([])},
        [("a", "one", "http_status"), ("b", "three", "contract")], "500 Internal Server Error", {},
    ),
    "queues-of-a-pool": ({B_QUEUES: answer({}, 500)}, [("b", "", "http_status")], "500 Internal Server Error", {}),
    "queues-of-a-pool-page-2": (
        {B_QUEUES: listed(answer([queue(3, "three"), queue(4, "four")]), answer({}, 500))},
        [("b", "", "http_status")], "500 ", {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("faults", "left_out", "says", "settings"), PARTIAL.values(), ids=PARTIAL)
async def test_a_part_of_prefect_fails(faults: Answers, left_out: Left, says: str, settings: dict[str, Any]) -> None:
    async with (
        serve(CASES["prefect"].works) as upstream,
        OneSource("prefect", upstream.url, **settings) as exporter,
    ):
        assert (await exporter.poll()).outcome == "success"
        published = await exporter.observed()

        upstream.requests.clear()
        upstream.answer = CASES["prefect"].failing(faults)
        exporter.time.seconds += 30
        state = await (poll_until_late(exporter, upstream, 5) if settings else exporter.poll())
        assert state.published
        unreadable = state.published.snapshot.unreadable
        assert [(one.pool, one.queue, one.reason) for one in unreadable] == left_out
        assert says in unreadable[0].message
        assert len(upstream.requests) <= 1010

        assert exporter.own("source_up") == 1
        assert exporter.own("queues_unreadable") == len(left_out)
        assert exporter.own("last_success_timestamp_seconds") == 1_000_000 + exporter.time.seconds
        assert exporter.own("polls_total", outcome="partial") == 1
        for _, _, reason in left_out:
            assert exporter.own("poll_errors_total", reason=reason) == 1
        (log,) = exporter.logs
        assert (log["log_level"], log["event"], log["count"]) == ("warning", "left out of the snapshot", len(left_out))
        lost = [f'concurrency_queue.*pool="{pool}",.*queue="{queue or "[a-z]+"}"' for pool, queue, _ in left_out]
        kept = [line for line in published if not any(re.match(pattern, line) for pattern in lost)]
        assert await exporter.observed() == kept
        assert len(kept) < len(published)


def twice(path: str, *rows: object) -> Answers:
    return {path: answer(rows)}


WHOLE: Final[dict[str, tuple[Answers, FailureReason, str, int]]] = {
    "all-queues-500": (
        dict.fromkeys((ONE, TWO, THREE), answer({}, 500)), "http_status", "no queue could be read; the first: POST", 6
    ),
    "a-queue-401": ({ONE: answer({}, 401)}, "auth", "401 Unauthorized", 6),
    "a-queue-403": ({ONE: answer({"detail": "no"}, 403)}, "auth", "403 Forbidden: no", 6),
    "a-queue-429": ({TWO: answer({}, 429)}, "rate_limited", "429 Too Many Requests", 6),
    "a-queue-closes": ({THREE: hang_up()}, "connect", "Server disconnected", 7),
    "pools-page-2": (
        {POOLS: listed(answer([pool(8, "a"), pool(9, "b")]), answer({}, 500))}, "http_status", "500 ", 3
    ),
    "endless-pools": (
        {POOLS: listed(answer([pool(8, "a"), pool(9, "b")]))}, "contract", "20 pages up to the one at offset 21", 23
    ),
    "wrong-path": ({POOLS: answer({"detail": "Not Found"}, 404)}, "http_status", "is url the address of the API", 1),
    "no-limit-will-do": (
        {POOLS: answer({"detail": "Invalid limit: must be less than or equal to 0."}, 422)}, "http_status", "422 ", 1
    ),
    "two-queues-of-a-name": (
        twice(A_QUEUES, queue(1, "one"), queue(2, "one")), "contract", "two queues 'one' in the pool 'a'", 6
    ),
    "two-pools-of-a-name": (twice(POOLS, pool(8, "a"), pool(9, "a")), "contract", "two pools 'a'", 3),
}  # fmt: skip


async def test_however_many_queues_hang_the_others_are_published() -> None:
    """More hang than there are connections and thirds of the deadline: those behind them are given up in time."""
    queues = [queue(number, f"q{number:02}") for number in range(20, 40)]
    readable = range(20, 24)
    of_queue: Answers = {
        f"/api/work_queues/{one['id']}/concurrency_status": answer(status()) if number in readable else never
        for number, one in enumerate(queues, start=20)
    }
    answers: Answers = {POOLS: answer([pool(8, "a")]), A_QUEUES: answer(queues), **of_queue}
    async with serve(by_path(answers)) as upstream, OneSource("prefect", upstream.url, **SLOW) as exporter:
        state = await poll_until_late(exporter, upstream, 7, 11, 15, hang=4)
        assert state.published
        assert [one.name for one in state.published.snapshot.queues] == [f"q{number}" for number in readable]
        assert {one.reason for one in state.published.snapshot.unreadable} == {"timeout"}
        assert exporter.own("queues_unreadable") == 16


@pytest.mark.parametrize(("faults", "reason", "says", "requests"), WHOLE.values(), ids=WHOLE)
async def test_a_part_of_prefect_fails_the_whole_poll(
    faults: Answers, reason: FailureReason, says: str, requests: int
) -> None:
    async with serve(CASES["prefect"].works) as upstream, OneSource("prefect", upstream.url) as exporter:
        assert (await exporter.poll()).outcome == "success"
        published = await exporter.observed()
        upstream.requests.clear()
        upstream.answer = CASES["prefect"].failing(faults)
        state = await exporter.poll()
        assert state.failure
        assert (state.outcome, state.failure.reason) == ("failure", reason)
        assert says in state.failure.message
        assert upstream.url in state.failure.message
        assert len(upstream.requests) <= requests
        assert exporter.own("source_up") == 0
        assert exporter.own("poll_errors_total", reason=reason) == 1
        assert await exporter.observed() == published


LONG: Final = "x" * 300

FINE: Final[dict[str, tuple[Answers, list[str]]]] = {
    "queue-deleted": ({ONE: answer({"detail": "Work queue not found."}, 404)}, ["two", "three"]),
    "all-queues-deleted": (
        dict.fromkeys((ONE, TWO, THREE), answer({"detail": "Work queue not found."}, 404)), []
    ),
    "pool-deleted": ({A_QUEUES: answer({"detail": 'Work pool "a" not found.'}, 404)}, ["three"]),
    "pool-deleted-other-quotes": ({A_QUEUES: answer({"detail": "Work pool 'a' not found."}, 404)}, ["three"]),
    "pool-with-long-name-deleted": (
        {
            POOLS: answer([pool(8, LONG), pool(9, "b")]),
            f"/api/work_pools/{LONG}/queues/filter": answer({"detail": f'Work pool "{LONG}" not found.'}, 404),
        },
        ["three"],
    ),
    "nulls": (
        {
            POOLS: answer([pool(8, "a", concurrency_limit=None, active_slots=None, status=None), pool(9, "b")]),
            A_QUEUES: answer([queue(1, "one", status=None, last_polled=None), queue(2, "two")]),
            ONE: answer(status(run(11, state_type=None, time_in_current_state=None), concurrency_limit=None)),
        },
        ["one", "two", "three"],
    ),
    "a-page-that-is-empty-too-early": ({ONE: paged(answer(status(pages=9)))}, ["one", "two", "three"]),
    "no-pools": ({POOLS: answer([])}, []),
    "no-queues": ({A_QUEUES: answer([]), B_QUEUES: answer([])}, []),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "queues"), FINE.values(), ids=FINE)
async def test_what_is_no_fault(changes: Answers, queues: list[str]) -> None:
    async with serve(CASES["prefect"].failing(changes)) as upstream, OneSource("prefect", upstream.url) as exporter:
        state = await exporter.poll()
        assert (state.outcome, await exporter.queues()) == ("success", queues)
        assert exporter.logs == []
        # One of them for the server's version, in the first poll.
        assert len(upstream.requests) <= 6 + 1
