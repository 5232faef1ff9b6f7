import asyncio
from datetime import datetime, timedelta

import httpx
import pytest
from cloro import AuthenticationError, Cloro, NotFoundError

from exporter.demo import Upstreams
from exporter.demo.pace import Wave
from exporter.demo.tasks import MAX_SLOTS, MAX_SUBMITTED, Tasks
from tests.harness.demo import START, Clock
from tests.harness.process import PATIENCE

STATUS = "/v1/async/status"


async def test_the_status(cloro: httpx.AsyncClient, clock: Clock) -> None:
    levels = set()
    for _ in range(200):
        response = await cloro.get(STATUS)
        assert response.status_code == 200
        answer = response.json()
        assert list(answer) == ["queuedTasks", "processingTasks", "priorityBreakdown", "concurrency"]
        breakdown = answer["priorityBreakdown"]
        priorities = [level["priority"] for level in breakdown]
        assert priorities == sorted(priorities, reverse=True)
        assert all(1 <= level["priority"] <= 10 and level["count"] > 0 for level in breakdown)
        assert answer["queuedTasks"] == sum(level["count"] for level in breakdown)
        if answer["concurrency"] is not None:
            assert answer["concurrency"] == {"used": answer["processingTasks"], "max": MAX_SLOTS}
        levels.update(priorities)
        clock.move(seconds=2)
    assert levels == set(range(1, 11))


async def test_usage_is_null_for_a_while(cloro: httpx.AsyncClient, clock: Clock) -> None:
    answers = []
    for _ in range(60):
        answers.append((await cloro.get(STATUS)).json())
        clock.move(seconds=10)
    unknown = [answer for answer in answers if answer["concurrency"] is None]
    assert 1 <= len(unknown) <= 6
    assert all(isinstance(answer["processingTasks"], int) for answer in unknown)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "MISSING_API_KEY"),
        ("demo", "INVALID_API_KEY_FORMAT"),
        ("Basic demo", "INVALID_API_KEY_FORMAT"),
        ("Bearer", "INVALID_API_KEY_FORMAT"),
        ("Bearer wrong", "INVALID_OR_EXPIRED_API_KEY"),
    ],
)
async def test_only_the_key_is_accepted(upstreams: Upstreams, header: str | None, code: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with httpx.AsyncClient(base_url=upstreams.cloro_url, timeout=PATIENCE) as client:
        response = await client.get(STATUS, headers=headers)
    assert response.status_code == 401
    error = response.json()["error"]
    assert list(error) == ["code", "message", "details", "timestamp"]
    assert error["code"] == code
    assert error["timestamp"] == "2026-11-21T23:24:25.143Z"
    assert datetime.fromisoformat(error["timestamp"]).tzinfo


async def test_every_answer_says_what_is_left_of_the_rate_limit(cloro: httpx.AsyncClient, clock: Clock) -> None:
    remaining = []
    for path in (STATUS, "/nope", STATUS):
        response = await cloro.get(path)
        assert response.headers["X-RateLimit-Limit"] == "1000"
        remaining.append(response.headers["X-RateLimit-Remaining"])
    assert remaining == ["999", "998", "997"]
    clock.move(seconds=1)
    assert (await cloro.get(STATUS)).headers["X-RateLimit-Remaining"] == "999"


async def test_other_paths_and_methods(cloro: httpx.AsyncClient) -> None:
    missing, wrong = await cloro.get("/v1/async"), await cloro.post(STATUS)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")


async def test_cloros_own_client_reads_it(upstreams: Upstreams) -> None:
    def ask() -> None:
        with Cloro(api_key=upstreams.cloro_api_key, base_url=upstreams.cloro_url) as client:
            status = client.async_tasks.status()
            assert status["queuedTasks"] == sum(level["count"] for level in status["priorityBreakdown"])
            assert status["concurrency"] == {"used": status["processingTasks"], "max": MAX_SLOTS}
            with pytest.raises(NotFoundError, match="Not Found"):
                client.async_tasks.retrieve("no-such-task")
        with (
            Cloro(api_key="wrong", base_url=upstreams.cloro_url) as client,
            pytest.raises(AuthenticationError, match="API key is invalid or has expired") as refused,
        ):
            client.async_tasks.status()
        assert refused.value.response.headers["X-Request-ID"]

    await asyncio.to_thread(ask)


async def test_cloros_own_client_submits_tasks(upstreams: Upstreams, clock: Clock) -> None:
    def submit() -> None:
        with Cloro(api_key=upstreams.cloro_api_key, base_url=upstreams.cloro_url) as client:
            before = client.async_tasks.status()["queuedTasks"]
            low = client.async_tasks.create("GOOGLE", {"query": "a", "country": "US"}, idempotency_key="1")
            high = client.async_tasks.create("CHATGPT", {"prompt": "a"}, priority=10, webhook={"url": "http://x"})
            assert (low.status, low.task_type, low.priority) == ("QUEUED", "GOOGLE", 1)
            assert (high.status, high.task_type, high.priority) == ("QUEUED", "CHATGPT", 10)
            assert low.created_at == "2026-11-21T23:24:25.143Z"
            status = client.async_tasks.status()
            assert status["queuedTasks"] == before + 2
            assert {"priority": 10, "count": 1} in status["priorityBreakdown"]
            seen = {low.id: ["QUEUED"], high.id: ["QUEUED"]}
            for _ in range(400):
                clock.move(seconds=1)
                for task_id, statuses in seen.items():
                    answer = client.async_tasks.retrieve(task_id)
                    assert ("response" in answer) == (answer["task"]["status"] == "COMPLETED")
                    if answer["task"]["status"] != statuses[-1]:
                        statuses.append(answer["task"]["status"])
            assert seen == {key: ["QUEUED", "PROCESSING", "COMPLETED"] for key in seen}
            # The run of one by the client itself.
            assert client.async_tasks.wait(high)["task"]["id"] == high.id

    await asyncio.to_thread(submit)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "Invalid JSON"),
        ("[]", "Input should be an object"),
        ("{}", "taskType: Field required"),
        ('{"taskType": "BING", "payload": {}}', "taskType: Input should be 'CHATGPT'"),
        ('{"taskType": "CHATGPT"}', "payload: Field required"),
        ('{"taskType": "CHATGPT", "payload": {}, "priority": 11}', "priority: Input should be less than"),
        ('{"taskType": "CHATGPT", "payload": {}, "priority": 0}', "priority: Input should be greater than"),
        ('{"taskType": "CHATGPT", "payload": {}, "priority": "1"}', "priority: Input should be a valid integer"),
    ],
)
async def test_a_bad_task_is_refused(cloro: httpx.AsyncClient, body: str, message: str) -> None:
    response = await cloro.post("/v1/async/task", content=body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert message in response.json()["error"]["message"]


async def test_tasks_need_the_key_too(upstreams: Upstreams) -> None:
    async with httpx.AsyncClient(base_url=upstreams.cloro_url, timeout=PATIENCE) as client:
        for response in (await client.post("/v1/async/task", json={}), await client.get("/v1/async/task/x")):
            assert (response.status_code, response.json()["error"]["code"]) == (401, "MISSING_API_KEY")


def test_the_queue_has_an_end() -> None:
    tasks = Tasks(START, arrivals=Wave(0))
    for _ in range(MAX_SUBMITTED):
        assert tasks.submit("GOOGLE", 1)
    assert tasks.submit("GOOGLE", 1) is None
    tasks.advance(START + timedelta(seconds=1))
    assert tasks.processing == MAX_SLOTS
    assert tasks.submit("GOOGLE", 1)
