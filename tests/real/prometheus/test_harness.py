from pathlib import Path

import pytest

from tests.harness.process import ProcessError, free_port
from tests.harness.prometheus import PrometheusServer, StartPrometheus, promtool_check_metrics


def test_it_scrapes_itself_and_a_dead_target(tmp_path: Path) -> None:
    port = free_port()
    own, dead = f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"
    with PrometheusServer(tmp_path, [own, dead], port=port) as server:
        expected = [
            ({"__name__": "up", "job": "test", "instance": own}, 1.0),
            ({"__name__": "up", "job": "test", "instance": dead}, 0.0),
        ]
        server.wait_for("sort_desc(up)", lambda found: found == expected)
        assert {target["labels"]["instance"]: target["health"] for target in server.targets()} == {
            own: "up",
            dead: "down",
        }
        assert server.query("scalar(count(up))") == [({}, 2.0)]
        with pytest.raises(AssertionError, match=r"nothing_of_this_name(?s:.)*connection refused"):
            server.wait_for("nothing_of_this_name", timeout=0.3)
        with pytest.raises(ValueError, match="parse error"):
            server.query("up{")
    assert server.log_problems() == []


def test_a_wrong_configuration_is_an_error_with_the_log(start_prometheus: StartPrometheus) -> None:
    with pytest.raises(ProcessError, match="no_such_key"):
        start_prometheus([], scrape={"no_such_key": 1})


def test_promtool_finds_faults_and_only_faults() -> None:
    good = "# HELP x_total A sentence.\n# TYPE x_total counter\nx_total 1\n"
    assert promtool_check_metrics(good) == []
    assert promtool_check_metrics(good.replace("x_total", "x")) == ['x counter metrics should have "_total" suffix']
    assert promtool_check_metrics("x{ 1\n")
