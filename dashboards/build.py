"""Write the JSON of every dashboard: `python -m dashboards.build`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import capacity, exporter, overview, queue

FOLDER: Final = Path(__file__).parent
BUILDERS: Final[Mapping[str, Callable[[], Dashboard]]] = {
    "overview": overview.build,
    "queue": queue.build,
    "capacity": capacity.build,
    "exporter": exporter.build,
}


def rendered(build: Callable[[], Dashboard]) -> str:
    """A dashboard as Grafana reads it, without the faults of the SDK.

    It numbers no panels, writes what only variables of intervals have into all, gives tables a footer that Grafana 13
    does not know, and heatmaps a colour for exemplars, which there are none of.
    """
    board: dict[str, Any] = json.loads(JSONEncoder().encode(build().build()))
    for number, panel in enumerate(board["panels"], start=1):
        panel["id"] = number
        if panel["type"] == "table":
            panel["options"].pop("footer", None)
        if panel["type"] == "heatmap":
            panel["options"].pop("exemplars", None)
    for variable in board["templating"]["list"]:
        for key in ("auto", "auto_count", "auto_min"):
            variable.pop(key, None)
    return json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, build in BUILDERS.items():
        (FOLDER / f"{name}.json").write_text(rendered(build), encoding="utf-8")
