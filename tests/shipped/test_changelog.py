"""The changelog and the licence, as users read them."""

import re
import tomllib

from tests.harness.programs import ROOT


def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_changelog_has_the_tags_of_prometheus_in_their_order() -> None:
    tags = ["CHANGE", "FEATURE", "ENHANCEMENT", "BUGFIX"]
    for version in changelog().split("\n## ")[1:]:
        entries = re.findall(r"^\* (?:\[(\w+)\])?", version, re.MULTILINE)
        assert entries
        assert entries == sorted(entries, key=tags.index)


def test_the_license_is_the_one_that_is_named() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license"] == "Apache-2.0"
    assert re.match(r"\s+Apache License\n\s+Version 2\.0, January 2004\n", text)
    assert text.rstrip().endswith("limitations under the License.")
