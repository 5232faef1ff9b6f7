"""The limits that are not queues: global ones, those of tags and those of deployments, in one list of the server."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from exporter.model import Unreadable
from exporter.sources.prefect.api import CONCURRENCY_LIMITS, Api, ConcurrencyLimit
from exporter.sources.prefect.failures import refuse_twins, with_fitting_names
from exporter.sources.prefect.names import Names
from exporter.sources.prefect.reading import LimitName


@dataclass(slots=True)
class Limits:
    """Reads the limits. The names of their deployments are asked for once.

    `admits` is told a limit's name as the server has it, which needs no further request.
    """

    api: Api
    names: Names
    admits: Callable[[str], bool]

    async def read(self) -> tuple[list[ConcurrencyLimit], list[LimitName], list[Unreadable]]:
        """Every limit of the server, the names of those that are admitted, and those whose name is too long.

        Raises `SourceError`.
        """
        listed = await self.api.listing("/v2/concurrency_limits/filter", CONCURRENCY_LIMITS)
        admitted = [limit for limit in listed if self.admits(limit.name)]
        await self.names.learn(deployment for limit in admitted if (deployment := _deployment(limit)))
        names, unnamed = with_fitting_names(self.api.url, "limits", map(self._name, admitted))
        refuse_twins(self.api.url, ((one.kind, one.name) for one in names), "two limits {0[1]!r} of the kind {0[0]}")
        return listed, names, unnamed

    def _name(self, limit: ConcurrencyLimit) -> LimitName:
        kind, _, name = limit.name.partition(":")
        if deployment := _deployment(limit):
            name = self.names.flow_and_deployment(deployment) or name
        elif kind != "tag" or not name:
            kind, name = "global", limit.name
        return LimitName(limit.id, kind, name)


def _deployment(limit: ConcurrencyLimit) -> uuid.UUID | None:
    """The deployment whose limit it is: its id is in the name, `deployment:<id>`, as the server writes ids.

    A global limit can have any name, another spelling of that id too.
    """
    kind, _, name = limit.name.partition(":")
    try:
        deployment = uuid.UUID(name)
    except ValueError:
        return None
    return deployment if kind == "deployment" and str(deployment) == name else None
