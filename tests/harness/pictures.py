"""Pictures for README and docs, of a made-up week; `make pictures` renders them with Grafana's published packages."""

import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Final

from dashboards.build import FOLDER
from tests.harness import browser, fleet, programs
from tests.harness.browser import SMALL, Visit
from tests.harness.history import STEP, history

IMAGES: Final = programs.ROOT / "docs" / "images"
SUMS: Final = IMAGES / "SHA256SUMS"
"""What the pictures were made from, as `sha256sum --check` reads it."""
QUEUE: Final = {"var-source": "prefect-prod", "var-pool": "kubernetes-prod", "var-queue": "default"}


def sums() -> str:
    """What `SUMS` has to say of the dashboards as they are."""
    boards = sorted(FOLDER / f"{path.stem}.json" for path in IMAGES.glob("*.png"))
    return "".join(f"{sha256(path.read_bytes()).hexdigest()}  ../../dashboards/{path.name}\n" for path in boards)


def main() -> None:
    """Write the pictures, and what they were made from."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with history(folder / "week", fleet.week, days=8) as prometheus:
            # Seconds after a sample: later the data would look old.
            shown = {"from": "now-7d", "to": f"now-{(int(time.time()) - 15) % STEP}s"}
            visits = [
                Visit("overview", sizes=[SMALL], params=shown, height=1104),
                Visit("queue", sizes=[SMALL], params=shown | QUEUE),
                Visit("capacity", sizes=[SMALL], params=shown),
            ]
            browser.render(prometheus.url, FOLDER, visits, pictures=folder)
        for visit in visits:
            (IMAGES / f"{visit.name}.png").write_bytes((folder / f"{visit.name}-dark-1440.png").read_bytes())
    SUMS.write_text(sums(), encoding="utf-8")


if __name__ == "__main__":
    main()
