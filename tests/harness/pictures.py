"""Pictures for README and docs: dashboards of a made-up week, and pages of a made-up night.

`make pictures` renders the dashboards with Grafana's published packages.
"""

import asyncio
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Final

from dashboards.build import FOLDER
from exporter.config import ABOUT
from exporter.web.routes import application
from tests.harness import browser, fleet, programs
from tests.harness.board import night, on_loopback
from tests.harness.browser import SMALL, Visit
from tests.harness.history import STEP, history

IMAGES: Final = programs.ROOT / "docs" / "images"
SUMS: Final = IMAGES / "SHA256SUMS"
"""What the pictures were made from, as `sha256sum --check` reads it."""
TEMPLATES: Final = programs.ROOT / "exporter" / "web" / "templates"
PAGES: Final = {
    "board": ("", 1352),
    "page": ("queue?source=production&pool=kubernetes-prod&queue=etl", 1290),
}
"""The pages by the name of their picture: address, and height in pixels."""
QUEUE: Final = {"var-source": "prefect-prod", "var-pool": "kubernetes-prod", "var-queue": "default"}


def sums() -> str:
    """What `SUMS` has to say of the dashboards and of the templates of pages as they are."""
    dashboards = (FOLDER / f"{path.stem}.json" for path in IMAGES.glob("*.png") if path.stem not in PAGES)
    made_of = [*sorted(dashboards), *sorted(TEMPLATES.iterdir())]
    return "".join(
        f"{sha256(path.read_bytes()).hexdigest()}  ../../{path.relative_to(programs.ROOT)}\n" for path in made_of
    )


async def pages(folder: Path) -> None:
    """Write a picture of each of `PAGES`."""
    board = night()
    reasons = {system: about.reasons for system, about in ABOUT.items()}
    async with on_loopback(application(board.store, board.telemetry, reasons=reasons)) as url:
        visits = [
            {"url": f"{url}{path}", "name": name, "theme": "dark", "widths": [SMALL[0]], "height": height}
            for name, (path, height) in PAGES.items()
        ]
        job = {"pictures": str(folder), "visits": visits}
        await asyncio.to_thread(browser.script, "look.mjs", job=job)


def main() -> None:
    """Write the pictures, and what they were made from."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
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
        asyncio.run(pages(folder))
        for name in PAGES:
            (IMAGES / f"{name}.png").write_bytes((folder / f"{name}-dark-1440.png").read_bytes())
    SUMS.write_text(sums(), encoding="utf-8")


if __name__ == "__main__":
    main()
