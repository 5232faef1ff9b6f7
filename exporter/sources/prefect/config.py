"""The settings of a Prefect source."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from exporter.model import PARTS, Part
from exporter.settings.base import Settings
from exporter.settings.regex import FullMatch, Regex
from exporter.shard import Shard
from exporter.sources.base import CountRequest, Source, SourceConfig
from exporter.sources.connection import HttpUrl
from exporter.sources.oldest import HolderSettings
from exporter.sources.prefect import environment
from exporter.sources.prefect.about import ABOUT
from exporter.sources.prefect.source import PrefectSource


def _api_url(url: str) -> str:
    """Refuse the addresses of Prefect Cloud that are not its API's, as Prefect's own client warns of them."""
    if not re.match(r"https?://(app|api)\.prefect\.cloud\b", url):
        return url
    if re.fullmatch(r"https://api\.prefect\.cloud/api/accounts/[^/]+/workspaces/[^/]+", url):
        return url
    account = re.search(r"/accounts?/([^/]+)", url)
    workspace = re.search(r"/workspaces?/([^/]+)", url)
    accounts = f"/accounts/{account[1] if account else 'ACCOUNT_ID'}"
    workspaces = f"/workspaces/{workspace[1] if workspace else 'WORKSPACE_ID'}"
    raise ValueError(f"not the address of an API; did you mean https://api.prefect.cloud/api{accounts}{workspaces}?")


class NameFilter(Settings):
    """Selects the names that match `include` and not `exclude`, both anchored at both ends."""

    include: Regex = FullMatch(".*")
    """Names to read, as a regular expression (RE2)."""
    exclude: Regex | None = None
    """Names to leave out, as a regular expression (RE2)."""

    def admits(self, name: str) -> bool:
        """Whether to read the thing of this name."""
        return self.include.matches(name) and not (self.exclude and self.exclude.matches(name))


class PrefectConfig(SourceConfig):
    """A Prefect server, or a workspace of Prefect Cloud."""

    about: ClassVar = ABOUT
    system: Literal["prefect"]
    """Type of the upstream server: the label `system`."""
    url: Annotated[HttpUrl, AfterValidator(_api_url)]
    """Address of the API, as in `PREFECT_API_URL`; the address of a server ends in `/api`."""
    concurrency: int = Field(default=4, ge=1, le=32)
    """Requests at the same time. A server answers in one process, so more than 4 only slow its other clients down."""
    pools: NameFilter = NameFilter()
    """Work pools to read, by name."""
    queues: NameFilter = NameFilter()
    """Work queues to read, by name, in the pools that are read."""
    ui_url: HttpUrl | None = None
    """Address of the UI, for links to it, as in `PREFECT_UI_URL`. By default it is derived from `url` as Prefect does:
    the same address without `/api`, and for Prefect Cloud the workspace's. Without either there are no links."""
    holders: HolderSettings = HolderSettings()
    """Which runs are served by id and name."""
    collect: Annotated[tuple[Part, ...], Field(strict=False, min_length=1)] = PARTS
    """Parts to read: slots of queues, waiting runs (`backlog`), pools, global, tag and deployment limits, workers."""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> dict[str, Any]:
        """The settings that the variables of Prefect's own client make."""
        return environment.settings(variables)

    @property
    def is_cloud(self) -> bool:
        """Whether it is a workspace of Prefect Cloud, maybe behind a gateway: a server has none."""
        return bool(re.search(r"/accounts/[^/]+/workspaces/[^/]+$", self.url))

    def part_of(self, shard: Shard) -> Shard:
        """Its pools, queues and limits are shared out."""
        return shard

    def build(self, shard: Shard, count_request: CountRequest) -> Source:
        """The source that this configures, as that shard reads it."""
        return PrefectSource(self, shard, count_request)
