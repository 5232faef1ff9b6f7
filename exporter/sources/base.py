"""What every source has: a configuration, a poll that returns a snapshot, and errors with bounded reasons."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from exporter.model import FailureReason, RateLimit, Retirement, Snapshot
from exporter.settings.base import Settings
from exporter.shard import WHOLE, Shard
from exporter.sources.about import About
from exporter.sources.connection import Connection, HttpUrl
from exporter.sources.http_config import NO_HEADERS, Authorization, BasicAuth, HttpHeaders, OAuth2, Seconds

T = TypeVar("T")

CountRequest = Callable[[str, str, Retirement | None], None]
"""Called once for each request that was sent: with its route template, the status code or `error`, and what its answer
announces of the route's end."""

_REQUEST_ID: Final = re.compile(r" \(X-Request-ID [!-'*-~]*\)")


def without_request_id(message: str) -> str:
    """The message of a `SourceError` without what differs at each request: equal for equal troubles."""
    return _REQUEST_ID.sub("", message)


class SourceError(Exception):
    """Why a poll, or a part of one, failed.

    SourceError          any reason; the message names method, URL, what was wrong, and what to do
    └── StatusError      upstream answered, with a status other than 200: auth (401, 403), rate_limited (429),
                         http_status (the rest)
    """

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason: FailureReason = reason
        self.request_id = ""
        """`X-Request-ID` of the answer that it is about, which upstream's support asks for: one printable word."""

    def __str__(self) -> str:
        """The message, with the id of the answer."""
        return f"{super().__str__()} (X-Request-ID {self.request_id})" if self.request_id else super().__str__()


class StatusError(SourceError):
    """Upstream's answer has a status other than 200.

    `detail` is what its body says, as it is: fit to be compared, not to be shown. `retry_after` is the seconds that
    it asks to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        detail: str = "",
        retry_after: float | None = None,
        rate_limit: RateLimit | None = None,
    ) -> None:
        reasons: dict[int, FailureReason] = {401: "auth", 403: "auth", 429: "rate_limited"}
        super().__init__(reasons.get(status, "http_status"), message)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        self.rate_limit = rate_limit


class Source(Protocol):
    """One configured upstream that can be polled."""

    async def poll(self, memory: object = None, /) -> Snapshot:
        """Read everything once. Raises `SourceError`; may be cancelled at any time.

        `memory` is that of the last good snapshot of this upstream, whichever object read it; None at first. What must
        not be lost goes there and into no attribute: a renewed certificate or a reload builds a new object, and a poll
        can fail after its source has read.
        """
        ...

    async def close(self) -> None:
        """Give its connections back."""
        ...


class Contract(BaseModel):
    """A part of upstream's answer: what it adds is ignored, what is missing or of another type breaks the contract."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


Count = Annotated[int, Field(ge=0, le=2**53)]
"""A number of things, small enough to be exact as the float that Prometheus stores."""


Rows = Annotated[list[T], FailFast()]
"""A list in an answer, read up to the first item that breaks the contract: to collect millions takes minutes."""


class Polling(Settings):
    """A source that is polled, and how often."""

    name: str = Field(min_length=1, max_length=100)
    """Unique name of the source: the label `source`."""
    system: str
    """Type of the upstream server: the label `system`."""
    url: HttpUrl
    """Address of the API."""
    interval: Seconds = 30.0
    """Time from the start of one poll to the start of the next; up to 2m while polls fail and no data is left."""
    timeout: Seconds = Field(default_factory=lambda data: float(data["interval"]))
    """Deadline of a whole poll. If a poll is still running when the next one is due, the next one is skipped."""
    stale_after: Seconds = Field(default_factory=lambda data: 3 * max(float(data["interval"]), float(data["timeout"])))
    """Age at which a snapshot is no longer served; at least `interval` + `timeout`. With a `timeout` above `interval`,
    a longer value can be needed; a warning at startup gives it."""
    max_series: int = Field(default=100_000, ge=1)
    """Maximum number of series: enough for some 2,800 queues. Above it, queues are left out and counted."""

    @property
    def least_stale_after(self) -> float:
        """Seconds that data has to live to be there until the next poll ends, if both take as long as they may.

        One that overruns `interval` has the polls skipped that fall into it: the next one begins when it has ended and
        an `interval` is full again.
        """
        # Rounded, since 0.3 / 0.1 is more than 3 or less.
        return math.ceil(round(self.timeout / self.interval, 6)) * self.interval + self.timeout

    @model_validator(mode="after")
    def _lives_to_the_next_poll(self) -> Self:
        if self.stale_after < self.interval + self.timeout:
            raise ValueError(
                f"stale_after ({self.stale_after:g}s) is less than interval + timeout"
                f" ({self.interval:g}s + {self.timeout:g}s): good data would expire before the next poll can end;"
                f" set it to {self.least_stale_after:g}s or more"
            )
        return self


class SourceConfig(Connection, Polling):
    """The settings that every source has."""

    about: ClassVar[About]
    """The facts about the system."""
    authorization: Authorization | None = None
    """Credentials for the `Authorization` header."""
    basic_auth: BasicAuth | None = None
    """User name and password."""
    oauth2: OAuth2 | None = None
    """OAuth 2.0 client credentials, with which the exporter requests a token."""
    http_headers: HttpHeaders = NO_HEADERS
    """Additional headers, by name, for each request, such as those that a gateway in front of the API requires."""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> dict[str, Any]:
        """The settings that the variables of `about.environment` make: each sets the key that is named there.

        Raises `ConfigError` where a system has rules of its own, which a variable breaks.
        """
        found: dict[str, Any] = {}
        for variable in cls.about.environment:
            if value := variables.get(variable.name):
                *above, last = variable.key.split(".")
                inner = found
                for key in above:
                    inner = inner.setdefault(key, {})
                inner[last] = value
        return found

    def part_of(self, shard: Shard) -> Shard | None:
        """Return the part of the source that this one of several exporters reads; None if it reads nothing.

        A source belongs to one exporter as a whole, unless its system can share it out.
        """
        return WHOLE if shard.owns(self.name) else None

    @property
    def certificates(self) -> tuple[Path, ...]:
        """The files of each `tls_config`, which are read again when they change."""
        return self.tls_config.files + (self.oauth2.tls_config.files if self.oauth2 else ())

    @property
    def upstream(self) -> tuple[object, ...]:
        """Return what identifies the upstream: while it is equal, data read with other settings is still its data."""
        # A gateway may choose by a header, or by the name in the TLS handshake, who answers.
        return self.system, self.url, self.tls_config.server_name, self.http_headers

    def build(self, shard: Shard, count_request: CountRequest) -> Source:
        """The source that this configures, for an exporter that reads this shard of it."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _one_kind_of_credentials(self) -> Self:
        if sum(kind is not None for kind in (self.authorization, self.basic_auth, self.oauth2)) > 1:
            raise ValueError("set one of authorization, basic_auth and oauth2")
        return self
