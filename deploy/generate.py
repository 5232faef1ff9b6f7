"""`make docs`: the rules of `alerts/` as the Prometheus operator reads them."""

from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

ROOT: Final = Path(__file__).resolve().parents[1]
RULE: Final = ROOT / "deploy/kubernetes/monitoring/prometheusrule.yaml"
_FILES: Final = ("recording-rules.yml", "thresholds.yml", "alerting-rules.yml")


def prometheus_rule() -> dict[str, Any]:
    """All groups of rules in one object; their order is kept, their comments are not."""
    yaml = YAML(typ="safe")
    groups = [group for name in _FILES for group in yaml.load(ROOT / "alerts" / name)["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "concurrency-exporter", "labels": {"app.kubernetes.io/name": "concurrency-exporter"}},
        "spec": {"groups": groups},
    }


def write(path: Path) -> None:
    """Write the object as YAML, each expression as the block of lines that it is."""
    yaml = YAML()
    yaml.width = 4096
    yaml.representer.add_representer(str, _string)
    with path.open("w", encoding="utf-8") as file:
        file.write("# Written by `make docs` from alerts/.\n")
        yaml.dump(prometheus_rule(), file)


def _string(representer: Any, text: str) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


if __name__ == "__main__":
    write(RULE)
