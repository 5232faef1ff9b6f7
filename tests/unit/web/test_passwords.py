"""Whose password is checked next, while strangers send wrong ones."""

import asyncio
import base64
import threading
from collections.abc import Iterator
from contextlib import suppress

import bcrypt
import pytest
from starlette.types import Message

from exporter.web.passwords import Passwords
from tests.harness.process import PATIENCE

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
USERS = {"prometheus": HASH, "other": HASH}
SCRAPER = "192.0.2.1"
STRANGERS = [f"198.51.100.{n}" for n in range(100)]


class Checks:
    """bcrypt's, one at a time when it is told to go on: the passwords that it was given, in order."""

    def __init__(self) -> None:
        self.of: list[str] = []
        self._go_on = threading.Semaphore(0)
        self._check = bcrypt.checkpw

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.of.append(password.decode())
        assert self._go_on.acquire(timeout=60)
        return self._check(password, hashed)

    def go_on(self, times: int = 1) -> None:
        self._go_on.release(times)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Checks]:
    held = Checks()
    monkeypatch.setattr(bcrypt, "checkpw", held)
    yield held
    held.go_on(1_000)


class Client:
    """A request that is sent at once, and is answered, or given up, later."""

    def __init__(self, passwords: Passwords, address: str | None, name: str, password: str) -> None:
        self._gone = asyncio.Event()
        authorization = b"Basic " + base64.b64encode(f"{name}:{password}".encode())
        scope = {"type": "http", "headers": [(b"authorization", authorization)], "client": address and (address, 1)}
        self.is_let_in = asyncio.create_task(passwords.are_right(USERS, scope, self._receive))

    async def _receive(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def leave(self) -> None:
        self._gone.set()


async def queued() -> None:
    """All that was sent waits, or is being checked."""
    for _ in range(10):
        await asyncio.sleep(0)


async def begun(checks: Checks, number: int) -> None:
    async with asyncio.timeout(60):
        while len(checks.of) < number:  # noqa: ASYNC110  it is a thread that counts
            await asyncio.sleep(0.01)


async def test_a_scraper_comes_before_strangers_who_have_tried_already(checks: Checks) -> None:
    """Although it waits for longer than they do, which is what comes next of equals."""
    passwords = Passwords()
    first = [Client(passwords, address, "prometheus", f"first of {address}") for address in STRANGERS]
    checks.go_on(len(first))
    assert not any(await asyncio.gather(*(one.is_let_in for one in first)))
    Client(passwords, STRANGERS[0], "prometheus", "held")
    await begun(checks, len(first) + 1)
    scraper = Client(passwords, SCRAPER, "prometheus", "secret")
    await queued()
    again = [Client(passwords, one, "prometheus", f"{n} of {one}") for n in range(3) for one in STRANGERS]
    await queued()
    checks.go_on(2)
    assert await scraper.is_let_in
    assert checks.of[len(first) + 1] == "secret"
    assert not any(one.is_let_in.done() for one in again)


@pytest.mark.parametrize("address", [SCRAPER, None])
@pytest.mark.parametrize("names", ["other", "nobody", "a new one each time"])
async def test_behind_a_proxy_names_do_not_hold_each_other_up(checks: Checks, address: str | None, names: str) -> None:
    passwords = Passwords()

    def stranger(number: int) -> Client:
        return Client(passwords, address, f"{number}" if "new" in names else names, f"wrong {number}")

    first = stranger(0)
    checks.go_on()
    assert not await first.is_let_in
    held = stranger(1)
    await begun(checks, 2)
    scraper = Client(passwords, address, "prometheus", "secret")
    await queued()
    flood = [stranger(number) for number in range(2, 200)]
    await queued()
    checks.go_on(2)
    assert await scraper.is_let_in
    assert checks.of[2] == "secret"
    assert not await held.is_let_in
    assert not any(one.is_let_in.done() for one in flood)


async def test_a_network_of_ipv6_is_one_client(checks: Checks) -> None:
    passwords = Passwords()
    first = Client(passwords, "2001:db8:0:1::1", "prometheus", "first")
    checks.go_on()
    assert not await first.is_let_in
    Client(passwords, "2001:db8:0:1::2", "prometheus", "held")
    await begun(checks, 2)
    scraper = Client(passwords, "2001:db8:0:2::1", "prometheus", "secret")
    await queued()
    for number in range(3, 200):
        Client(passwords, f"2001:db8:0:1::{number:x}", "prometheus", f"wrong {number}")
    await queued()
    checks.go_on(2)
    assert await scraper.is_let_in


async def test_who_has_gone_is_not_checked(checks: Checks) -> None:
    passwords = Passwords()
    held = Client(passwords, STRANGERS[0], "prometheus", "held")
    await begun(checks, 1)
    flood = [Client(passwords, STRANGERS[0], "prometheus", f"wrong {n}") for n in range(300)]
    await queued()
    for one in flood:
        one.leave()
    assert not any(await asyncio.gather(*(one.is_let_in for one in flood)))
    last = Client(passwords, STRANGERS[0], "prometheus", "secret")
    checks.go_on(2)
    assert not await held.is_let_in
    assert await last.is_let_in
    assert checks.of == ["held", "secret"]


@pytest.mark.parametrize(("password", "right"), [("secret", True), ("wrong", False)])
async def test_the_same_password_is_checked_once(checks: Checks, password: str, *, right: bool) -> None:
    passwords = Passwords()
    checks.go_on()
    many = [Client(passwords, address, "prometheus", password) for address in STRANGERS]
    assert await asyncio.gather(*(one.is_let_in for one in many)) == [right] * len(many)
    assert await Client(passwords, SCRAPER, "prometheus", password).is_let_in is right
    assert checks.of == [password]


async def test_wrong_ones_do_not_push_out_a_right_one_and_are_not_kept_without_end(checks: Checks) -> None:
    passwords = Passwords()
    checks.go_on(10_000)
    assert await Client(passwords, SCRAPER, "prometheus", "secret").is_let_in
    for number in range(1_500):
        assert not await Client(passwords, f"203.0.{number // 256}.{number % 256}", f"{number}", "wrong").is_let_in
    before = len(checks.of)
    assert await Client(passwords, SCRAPER, "prometheus", "secret").is_let_in
    assert not await Client(passwords, SCRAPER, "1499", "wrong").is_let_in
    assert len(checks.of) == before
    assert not await Client(passwords, SCRAPER, "0", "wrong").is_let_in
    assert len(checks.of) == before + 1


async def test_a_request_that_is_cancelled_holds_nobody_up() -> None:
    """At each step of the loop: before its turn, between its turn and the check, in the check."""
    for steps in range(12):
        passwords = Passwords()
        first = Client(passwords, SCRAPER, "prometheus", "wrong")
        for _ in range(steps):
            await asyncio.sleep(0)
        second = Client(passwords, SCRAPER, "prometheus", "secret")
        first.is_let_in.cancel()
        async with asyncio.timeout(PATIENCE):
            assert await second.is_let_in
            assert await Client(passwords, SCRAPER, "other", "secret").is_let_in


async def test_a_check_that_fails_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Passwords()
    check = bcrypt.checkpw

    def broken(password: bytes, hashed: bytes) -> bool:
        if password == b"broken":
            raise MemoryError
        return check(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", broken)
    first = Client(passwords, SCRAPER, "prometheus", "broken")
    second = Client(passwords, SCRAPER, "prometheus", "secret")
    assert await second.is_let_in
    with suppress(MemoryError):
        await first.is_let_in
