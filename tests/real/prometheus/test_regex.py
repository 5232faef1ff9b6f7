"""Regular expressions of the configuration are Prometheus' own: it takes the same, and they match the same."""

import json
import subprocess
from pathlib import Path

import pytest

from exporter.settings.regex import FullMatch
from tests.harness.programs import program

ENDLESS = "a-" * 28 + "b"
"""The name on which Python's `re` would try some expressions in 2^28 ways."""
PATTERNS = [
    *("", ".*", "a.b", "(?-s)a.b", "(?i)TEAM-é+", "(?:)", "a|", "((((a))))", "(?P<name>team)-1", "(?U)a+b"),
    *("[[:alnum:]]+-tmp", "[[:^alpha:]]+", r"\d+", r"\w+", r"\s", r"\pL+", r"\p{Greek}+", "[^a]", "[a-z]{2,5}"),
    *("^a$", r"\Aa\z", "(?m)^a$", r"\bfoo\b-tmp", r"\Qa.b\E", r"\x{e9}", r"a\nb", "a{1000}", "é", r"\\C", "(.+-)*b"),
]
TEXTS = [
    *("", "a", "b", "A", "aab", "a.b", "axb", "a\nb", "a\n", "\n", "é", "É", "TEAM-é", "team-ÉÉ", "team-1", "foo-tmp"),
    *("x-tmp", "é-tmp", "12", "١٢", "Ω", " ", "\u00a0", "a" * 1000, "\\C", "🦆", ENDLESS, "\x00"),
]
REFUSED = [
    *("(", "[a", "a**", "a++", "a{1001}", "(a{1000}){2}", "{1}", "[z-a]", "*", "\\", "(?=x)", "(?!x)", "(?<!x)y"),
    *("(?>a)", r"(a)\1", "(?P=n)", "(?#c)", "(?x)a", "(?a)a", r"\Z", r"\C", r"\\\C", r"[\C]", r"\h", r"\R", r"\u0041"),
    *("[[:nope:]]", r"\p{Nope}", r"\N{DIGIT ONE}"),
]


def of_prometheus(pattern: str, folder: Path) -> bool:
    """Whether Prometheus loads a configuration with this expression."""
    job = {"job_name": "job", "metric_relabel_configs": [{"source_labels": ["x"], "regex": pattern, "action": "drop"}]}
    config = folder / "prometheus.json"
    config.write_text(json.dumps({"scrape_configs": [job]}))
    done = subprocess.run(
        [program("promtool"), "check", "config", config], capture_output=True, timeout=60, check=False
    )
    return done.returncode == 0


def quoted(value: object) -> str:
    """The value in YAML, or as a string of PromQL: neither knows surrogates."""
    return json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize("pattern", REFUSED)
def test_what_prometheus_refuses_is_refused(pattern: str, tmp_path: Path) -> None:
    assert not of_prometheus(pattern, tmp_path)
    with pytest.raises(ValueError, match=r"is not a regular expression in the syntax of RE2: [a-z]"):
        FullMatch(pattern)


def test_what_matches_is_what_matches_in_prometheus(tmp_path: Path) -> None:
    """Each expression as a matcher of Prometheus, against a series for each text.

    With a flag that Prometheus sets itself from version 3 on: a dot matches a newline.
    """
    values = [f'text{{number="{number}",name={quoted(text)}}}' for number, text in enumerate(TEXTS)]
    tests = [
        {
            "expr": f"count by (number) (text{{name=~{quoted(f'(?s){pattern}')}}})",
            "eval_time": "0s",
            "exp_samples": [
                {"labels": f'{{number="{number}"}}', "value": 1}
                for number, text in enumerate(TEXTS)
                if FullMatch(pattern).matches(text)
            ],
        }
        for pattern in PATTERNS
    ]
    series = [{"series": value, "values": "1"} for value in values]
    file = tmp_path / "tests.json"
    file.write_text(quoted({"tests": [{"input_series": series, "promql_expr_test": tests}]}))
    done = subprocess.run(
        [program("promtool"), "test", "rules", file], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(len(one["exp_samples"]) for one in tests) > len(PATTERNS)
