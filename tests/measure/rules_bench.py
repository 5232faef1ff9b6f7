"""What the rules cost a Prometheus: seconds of one evaluation of each group, by `python -m tests.measure.rules_bench`.

A day of what their windows read lies behind it. Another number of queues, and another interval, are arguments.
"""

import argparse
import re
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from exporter.metrics.body import Body
from exporter.metrics.text import Format
from tests.harness.fleet import many
from tests.harness.history import backfill, sample
from tests.harness.inprocess import Exporter, Time
from tests.harness.prometheus import PrometheusServer
from tests.harness.promql import ALERTS
from tests.harness.rules import FILES, rules
from tests.harness.upstream import serving

DAY: Final = 86_400
RULES: Final = {"rule_files": [str(ALERTS / file) for file in FILES]}
IN_WINDOWS: Final = {name for rule in rules() for name in re.findall(r"(concurrency:\w+:\w+)\[\d+[hd]\]", rule.expr)}
"""The recorded series of which a rule reads an hour or more."""


def answer(queues: int) -> bytes:
    """What the exporter serves of so many queues, a seventh of which are full."""
    now = time.time()
    exporter = Exporter(time=Time(seconds=now, wall=0.0))
    for (name, system), snapshot in many(0, now, queues).items():
        exporter.add(name, system)
        exporter.publish(name, snapshot, max_series=10_000_000)
        exporter.telemetry.poll_ended(name, "success", 0.3, set())
    view = exporter.view
    text = b"".join(Body(view.live.values(), Format.CLASSIC).plain(exporter.telemetry.render(view, Format.CLASSIC)))
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text)


def measure(folder: Path, queues: int, interval: int) -> None:
    """Print how long one evaluation of each group took; of several the shortest and the longest."""
    served = answer(queues)
    with serving(lambda _: served) as upstream:
        target = upstream.url.removeprefix("http://")
        with PrometheusServer(folder / "now", [target], config=RULES) as server:
            server.wait_for("count(concurrency:saturated:bool)", timeout=120)
            series = server.query(f'{{__name__=~"{"|".join(sorted(IN_WINDOWS))}"}}')
        end = int(time.time())
        moments = range(end - DAY, end, interval)
        backfill(folder, (sample(labels, f"{value:g}", moment) for moment in moments for labels, value in series))
        seconds: dict[str, set[float]] = {}
        with PrometheusServer(folder, [target], scrape_interval=f"{interval}s", config=RULES) as server:
            server.wait_for("count(concurrency:saturated:avg1d)", timeout=300)
            begin = datetime.now(UTC)
            while not seconds or not all(seconds.values()):
                time.sleep(interval)
                for group in server.rule_groups():
                    seconds.setdefault(group["name"], set())
                    if datetime.fromisoformat(group["lastEvaluation"]) > begin:
                        seconds[group["name"]].add(group["evaluationTime"])
            (scraped,) = (value for _, value in server.query("sum(scrape_samples_scraped)"))
            (recorded,) = (value for _, value in server.query('count({__name__=~"concurrency:.+"})'))
    print(f"{queues} queues: {scraped:.0f} series scraped, {recorded:.0f} recorded, evaluated every {interval} s")
    for name, found in seconds.items():
        print(f"{name:30} {min(found):6.3f} to {max(found):6.3f} s")


def main() -> None:
    """Measure, in a folder that is gone afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queues", nargs="?", type=int, default=1_000)
    parser.add_argument("interval", nargs="?", type=int, default=60)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), flags.queues, flags.interval)


if __name__ == "__main__":
    main()
