"""Dashboards in a real browser, with Grafana's published packages: see `tests/browser`."""

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tests.harness import programs
from tests.harness.process import PATIENCE
from tests.harness.programs import ROOT

FOLDER: Final = programs.ROOT / "tests" / "browser"
SMALL: Final = (1440, 900)
LARGE: Final = (1920, 1080)


@dataclass(frozen=True)
class Visit:
    """One dashboard, by the name of its file, in one theme and in turn in some sizes; then at most one thing is done.

    `params` are those of its URL. `choose` is a variable and the option that is chosen, `fill` a variable and the text
    that is written, `follow` the text of a link. `picture` is the name of the files, else that of the dashboard; they
    end after `height` pixels, if any.
    """

    name: str
    theme: str = "dark"
    sizes: Sequence[tuple[int, int]] = (SMALL, LARGE)
    params: Mapping[str, str] = field(default_factory=dict)
    choose: tuple[str, str] | None = None
    fill: tuple[str, str] | None = None
    follow: str = ""
    picture: str = ""
    height: int | None = None


Page = dict[str, Any]
"""What was seen of one visit in one size, as `check.mjs` tells it; `then` is what was seen after something was done."""


def node() -> Path:
    """Path of Node; skips the test when it, or what `make test` installs for it, is missing."""
    found = shutil.which("node")
    if not found:
        raise programs.missing("node is not on PATH: apt install nodejs npm")
    if not (FOLDER / "node_modules" / "@grafana" / "ui").is_dir():
        raise programs.missing("the packages of tests/browser are not installed: make test installs them")
    return Path(found)


def chromium() -> Path:
    """Path of Chromium; skips the test when it is missing."""
    found = shutil.which("chromium")
    if not found:
        raise programs.missing("chromium is not on PATH: apt install chromium")
    return Path(found)


def script(name: str, *arguments: str | Path, job: object = None, timeout: float = PATIENCE) -> str:
    """What one of the scripts there prints; `job` goes to it as JSON, `timeout` is in seconds.

    Raises `AssertionError` with what it printed where it fails.
    """
    done = subprocess.run(
        [node(), FOLDER / name, *arguments],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        input=json.dumps(job),
        timeout=timeout,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def _build() -> None:
    """Bundle the page, unless it was of what there is now.

    Another process may read the bundle: nobody else writes it meanwhile, nor writes it again.
    """
    sources = sorted((*FOLDER.glob("src/*"), FOLDER / "build.mjs", FOLDER / "package-lock.json"))
    made_of = sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = FOLDER / "dist" / "made-of"
    with locked(FOLDER):
        if not stamp.exists() or stamp.read_text() != made_of:
            script("build.mjs")
            stamp.write_text(made_of)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here with this folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def render(prometheus: str, dashboards: Path, visits: Sequence[Visit], *, pictures: Path | None = None) -> list[Page]:
    """What a person would see: a page for each visit and size. The pictures go to a folder, if any.

    Raises `AssertionError` with what was printed where a page could not be rendered.
    """
    chromium()
    _build()
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
    job = {
        "prometheus": prometheus,
        "dashboards": str(dashboards),
        "pictures": str(pictures) if pictures else None,
        "visits": [asdict(visit) for visit in visits],
    }
    pages: list[Page] = json.loads(script("check.mjs", job=job, timeout=2 * PATIENCE))
    return pages


def faults(page: Page, may_be_empty: Mapping[str, str], readable: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with a page.

    `may_be_empty` is what a panel says that has nothing to show; `readable` is a regular expression of the text that
    has to be legible in a panel.
    """
    yield from page["errors"]
    yield from page["ids"]
    if page.get("fatal"):
        yield page["fatal"]
        return
    if not page["fits"]:
        yield "the page is wider than the window"
    for variable in page["variables"]:
        if variable.get("options") == []:
            yield f"${variable['name']} has no options"
    for query in page["queries"]:
        if query["status"] != "success":
            yield f"{query['error']}: {query['expr']}"
        elif re.search(r"\$\{?[a-z_]", query["expr"]):
            yield f"a variable is left in {query['expr']}"
    for panel in page["panels"]:
        yield from _faults_of_panel(panel, page, may_be_empty, readable)


def _faults_of_panel(
    panel: dict[str, Any], page: Page, may_be_empty: Mapping[str, str], readable: Mapping[str, str]
) -> Iterator[str]:
    title = panel["title"]
    if problem := panel.get("error") or panel.get("loadError"):
        yield f"{title}: {problem}"
    if title not in page["shown"]:
        yield f"{title} is not shown"
        return
    shown = page["shown"][title]
    is_empty = not any(one["points"] for one in panel["fields"])
    if is_empty and title not in may_be_empty:
        yield f"{title} is empty"
    elif is_empty and may_be_empty[title] not in shown["text"]:
        yield f"{title} does not say {may_be_empty[title]!r}: {shown['text']}"
    elif not is_empty and not re.search(readable.get(title, ""), shown["text"]):
        yield f"{title} does not show {readable[title]!r}: {shown['text']}"
    if not shown["drawn"]:
        yield f"{title} draws nothing"
    if shown["left"] < 0 or shown["right"] > page["width"]:
        yield f"{title} is outside of the page"
    # The legend of a graph may lose its end, which is the name of the source.
    ends = r"Series color|.*\)" if panel["type"] == "timeseries" else "(?!)"
    if cut := [text for text in shown["cut"] if not re.fullmatch(ends, text)]:
        yield f"{title}: cut off: {cut}"


PICTURES = ROOT / ".cache" / "dashboards"
Expected = Mapping[str, Mapping[str, str]]
"""By dashboard and panel."""


def name_of(page: Page) -> str:
    return f"{page['name']} {page['theme']} {page['size'][0]}"


def all_faults(pages: list[Page], may_be_empty: Mapping[str, str], readable: Expected) -> list[str]:
    return [
        f"{name_of(page)}: {fault}"
        for page in pages
        for fault in faults(page, may_be_empty, readable.get(page["name"], {}))
    ]
