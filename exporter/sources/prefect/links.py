"""Links into Prefect's own UI: pages that the UI of every version has."""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Links:
    """Links below the address of the UI; None for each, if that is not known."""

    ui_url: str | None

    @classmethod
    def of(cls, api_url: str, ui_url: str | None) -> Self:
        """The links of the UI at `ui_url`; if that is not set, of the UI that belongs to this API."""
        return cls(ui_url or ui_of(api_url))

    def run(self, run_id: str) -> str | None:
        """The page of a flow run."""
        return self._below("runs", "flow-run", run_id)

    def pool(self, name: str) -> str | None:
        """The page of a work pool."""
        return self._below("work-pools", "work-pool", name)

    def queue(self, pool: str, name: str) -> str | None:
        """The page of a work queue. The one by its id is not in every UI."""
        return self._below("work-pools", "work-pool", pool, "queue", name)

    def limit(self, kind: str, limit_id: str) -> str | None:
        """The page of a tag limit, or the list of all limits: only tag limits have a page in every UI."""
        if kind != "tag":
            return self._below("concurrency-limits")
        return self._below("concurrency-limits", "concurrency-limit", limit_id)

    def _below(self, *path: str) -> str | None:
        # A browser takes such a name for a step in the path, however it is written.
        if self.ui_url is None or {".", ".."}.intersection(path):
            return None
        return "/".join((self.ui_url, *(quote(step, safe="") for step in path)))


def ui_of(api_url: str) -> str | None:
    """The address of the UI by the rule of Prefect's own client, or None where that rule would only guess.

    The UI of a server is where its API is, without `/api`. Prefect Cloud has a host for it.
    """
    if cloud := re.fullmatch(r"https://api\.prefect\.cloud/api/accounts/([^/]+)/workspaces/([^/]+)", api_url):
        return f"https://app.prefect.cloud/account/{cloud[1]}/workspace/{cloud[2]}"
    server = re.fullmatch(r"(https?://[^/]+(?:/.*)?)/api", api_url)
    # The client's rule rewrites these words wherever they are in a path.
    return server[1] if server and not re.search("/(api|accounts|workspaces)/", server[1] + "/") else None
