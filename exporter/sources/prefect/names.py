"""The names of flows and deployments, each asked for once."""

import uuid
from collections.abc import Collection, Iterable
from typing import Final, TypeVar

from exporter.sources.prefect.api import DEPLOYMENTS, FLOWS, MAX_NAME, Api, Deployment
from exporter.sources.prefect.reading import Origin

T = TypeVar("T")

_MOST: Final = 10_000
"""Most names of each kind that are remembered, unless more are in use."""


class Names:
    """Remembers the names of flows and deployments by their ids. One that is gone has none, and does not come back."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._deployments: dict[uuid.UUID, Deployment | None] = {}
        self._flows: dict[uuid.UUID, str | None] = {}

    async def learn(
        self, deployments: Iterable[uuid.UUID], flows: Iterable[uuid.UUID] = (), *, most: int | None = None
    ) -> None:
        """Ask for the names of these deployments and their flows, and of these flows, that are not known yet.

        The first of them, if there are more than `most` of a kind. Raises `SourceError`.
        """
        wanted = dict.fromkeys(deployments)
        if new := _unknown(wanted, self._deployments, most):
            found = await self._api.by_ids("/deployments/filter", DEPLOYMENTS, "deployments", new)
            self._deployments |= dict.fromkeys(new) | {row.id: row for row in found}
            _trim(self._deployments, wanted)
        of_deployments = (row.flow_id for one in wanted if (row := self._deployments.get(one)))
        wanted = dict.fromkeys((*flows, *of_deployments))
        if new := _unknown(wanted, self._flows, most):
            rows = await self._api.by_ids("/flows/filter", FLOWS, "flows", new)
            self._flows |= dict.fromkeys(new) | {row.id: row.name for row in rows}
            _trim(self._flows, wanted)

    def details(self, origin: Origin) -> dict[str, str]:
        """The names that are known of an origin, for people."""
        deployment = self._deployments.get(origin.deployment_id) if origin.deployment_id else None
        names = {
            "flow": self._flows.get(origin.flow_id) if origin.flow_id else None,
            "deployment": deployment.name if deployment else None,
            "worker": origin.worker,
        }
        return {word: name for word, name in names.items() if name and len(name) <= MAX_NAME}

    def flow_and_deployment(self, deployment_id: uuid.UUID) -> str | None:
        """The name by which people know a deployment: `flow/deployment`."""
        row = self._deployments.get(deployment_id)
        flow = self._flows.get(row.flow_id) if row else None
        return f"{flow}/{row.name}" if row and flow else None


def _unknown(wanted: Iterable[uuid.UUID], known: Collection[uuid.UUID], most: int | None) -> list[uuid.UUID]:
    return [one for one in wanted if one not in known][:most]


def _trim(known: dict[uuid.UUID, T], wanted: Collection[uuid.UUID]) -> None:
    """Forget those that are not wanted, the oldest first, as long as there are too many."""
    for one in [one for one in known if one not in wanted][: max(len(known) - _MOST, 0)]:
        del known[one]
