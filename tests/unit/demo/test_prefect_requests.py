from typing import Any
from uuid import uuid4

import httpx
import pytest

from exporter.demo.scenario import QUEUES
from tests.harness.demo import LISTINGS, post


@pytest.mark.parametrize("path", [*LISTINGS, f"/work_queues/{QUEUES[0].id}/concurrency_status"])
async def test_a_limit_out_of_bounds_is_refused(prefect: httpx.AsyncClient, path: str) -> None:
    response = await prefect.post(path, json={"limit": 201})
    assert response.status_code == 422
    assert response.json() == {"detail": "Invalid limit: must be less than or equal to 200."}
    response = await prefect.post(path, json={"limit": -1})
    assert response.status_code == 422
    assert response.json() == {"detail": "Invalid limit: must be greater than or equal to 0."}


@pytest.mark.parametrize(
    ("path", "body", "wrong"),
    [
        ("Q", {"limit": "x"}, ("int_parsing", ["limit"], "a valid integer, unable to parse string as an integer")),
        ("Q", {"limit": 1.5}, ("int_from_float", ["limit"], "a valid integer, got a number with a fractional part")),
        ("Q", {"limit": [1]}, ("int_type", ["limit"], "a valid integer")),
        ("Q", {"page": 0}, ("greater_than_equal", ["page"], "greater than or equal to 1")),
        ("/work_queues/filter", {"offset": -1}, ("greater_than_equal", ["offset"], "greater than or equal to 0")),
        (
            "/work_queues/filter",
            {"work_queues": []},
            ("model_attributes_type", ["work_queues"], "a valid dictionary or object to extract fields from"),
        ),
        (
            "/work_queues/filter",
            {"work_queues": {"id": {"any_": "x"}}},
            ("list_type", ["work_queues", "id", "any_"], "a valid list"),
        ),
        (
            "/flow_runs/filter",
            {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "NOPE"]}}}},
            (
                "enum",
                ["flow_runs", "state", "type", "any_", 1],
                "'SCHEDULED', 'PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED', 'PAUSED' or "
                "'CANCELLING'",
            ),
        ),
        (
            "/flow_runs/filter",
            {"flow_runs": {"state": {"name": {"any_": [5]}}}},
            ("string_type", ["flow_runs", "state", "name", "any_", 0], "a valid string"),
        ),
    ],
)
async def test_an_invalid_body_is_refused_as_the_server_does(
    prefect: httpx.AsyncClient, path: str, body: Any, wrong: tuple[str, list[Any], str]
) -> None:
    path = f"/work_queues/{QUEUES[0].id}/concurrency_status" if path == "Q" else path
    response = await prefect.post(path, json=body)
    assert response.status_code == 422
    answer = response.json()
    assert list(answer) == ["exception_message", "exception_detail", "request_body"]
    assert answer["exception_message"] == "Invalid request received."
    assert answer["request_body"] == body
    kind, where, message = wrong
    [detail] = answer["exception_detail"]
    assert detail["type"] == kind
    assert detail["loc"] == ["body", *where]
    assert detail["msg"] == f"Input should be {message}"


async def test_what_a_filter_does_not_know_is_refused_and_what_the_body_does_not_know_is_ignored(
    prefect: httpx.AsyncClient,
) -> None:
    for body in ({"work_queues": {"nope": 1}}, {"work_queues": {"id": {"nope": 1}}}):
        response = await prefect.post("/work_queues/filter", json=body)
        assert response.status_code == 422
        [wrong] = response.json()["exception_detail"]
        assert (wrong["type"], wrong["msg"]) == ("extra_forbidden", "Extra inputs are not permitted")
    everything = await post(prefect, "/work_queues/filter", work_queue={"id": {"any_": []}}, more=1)
    assert len(everything) == len(QUEUES)


async def test_all_that_is_wrong_is_listed(prefect: httpx.AsyncClient) -> None:
    response = await prefect.post("/work_queues/filter", json={"limit": "x", "offset": -1})
    assert [wrong["loc"] for wrong in response.json()["exception_detail"]] == [["body", "limit"], ["body", "offset"]]
    response = await prefect.post("/work_queues/filter", json={"work_queues": {"id": {"any_": ["zz", 5]}}})
    assert [wrong["type"] for wrong in response.json()["exception_detail"]] == ["uuid_parsing", "uuid_type"]


async def test_bodies_are_read_leniently(prefect: httpx.AsyncClient) -> None:
    path = f"/work_queues/{QUEUES[4].id}/concurrency_status"
    assert (await prefect.post(path)).json()["limit"] == 200
    assert (await prefect.post(path, content=b'{"limit": 1}')).json()["limit"] == 1
    for limit, effective in (("5", 5), (True, 1), (2.0, 2), (None, 200)):
        assert (await post(prefect, path, limit=limit))["limit"] == effective
    broken = await prefect.post(path, content=b"{oops")
    assert broken.status_code == 422
    [wrong] = broken.json()["exception_detail"]
    assert (wrong["type"], wrong["loc"]) == ("json_invalid", ["body", 1])
    assert broken.json()["request_body"] == "{oops"
    assert (await prefect.post(path, json=[1])).status_code == 422


async def test_what_is_not_there(prefect: httpx.AsyncClient) -> None:
    queue = QUEUES[0].id
    for method, path, code, detail in (
        ("POST", f"/work_queues/{uuid4()}/concurrency_status", 404, "Work queue not found."),
        ("POST", "/work_queues/malformed/concurrency_status", 404, "Not Found"),
        ("POST", "/work_pools/nope/queues/filter", 404, 'Work pool "nope" not found.'),
        ("POST", "/work_pools/nope/workers/filter", 404, 'Work pool "nope" not found.'),
        ("GET", "/nope", 404, "Not Found"),
        ("GET", "/metrics", 404, "Not Found"),
        ("GET", f"/work_queues/{queue}/concurrency_status", 405, "Method Not Allowed"),
    ):
        response = await prefect.request(method, path)
        assert (response.status_code, response.json()) == (code, {"detail": detail}), path
    outside = await prefect.get(str(prefect.base_url).removesuffix("/api/") + "/health")
    assert (outside.status_code, outside.json()) == (404, {"detail": "Not Found"})
    for spelling in (str(queue).upper(), queue.hex):
        assert (await prefect.post(f"/work_queues/{spelling}/concurrency_status")).status_code == 200
    assert (await prefect.post(f"/work_queues/{queue}/concurrency_status/")).status_code == 307
