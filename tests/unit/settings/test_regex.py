"""Regular expressions of the configuration against Prometheus' own, and with names that stop other engines."""

import pytest

from exporter.settings.regex import FullMatch
from exporter.sources.prefect import NameFilter

ENDLESS = "a-" * 28 + "b"
"""The name on which Python's `re` would try the expression below in 2^28 ways."""


@pytest.mark.parametrize(
    "pattern", ["(.+-)*scratch(-.+)*", "(a|a)*c", "(([a-z-])+.)+[A-Z]", ".*.*.*.*=.*", "(?:a?){28}c"]
)
@pytest.mark.parametrize("text", [ENDLESS, "a-" * 100_000, "a" * 100_000], ids=["short", "dashes", "long"])
def test_no_name_takes_long(pattern: str, text: str) -> None:
    assert not FullMatch(pattern).matches(text)
    assert NameFilter.model_validate({"exclude": pattern}).admits(text)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a\n\u2028é" + "x" * 1000, "missing )"),
        ("(pa55", "missing )"),
        ("[pa55", "missing ]"),
        ("pa55)", "unexpected )"),
        ("(?P<pa55", "invalid named capture group"),
        ("[[:pa55:]]", "invalid character class range"),
        (r"\p{Pa55}", "invalid character class range"),
        ("(?ipa55)", "invalid perl operator"),
        ("a{123456789}", "invalid repetition size"),
        (r"\x{123456789", "invalid escape sequence"),
        # Signs of the syntax tell where to look.
        ("(", "missing ): ("),
        ("pa55**", "bad repetition operator: **"),
        ("*pa55", "no argument for repetition operator: *"),
        ("(?=pa55)", "invalid perl operator: (?="),
        (r"pa55\Z", r"invalid escape sequence: \Z"),
        ("pa55\\", "trailing \\"),
    ],
)
def test_a_message_says_what_is_wrong_and_repeats_no_value(pattern: str, reason: str) -> None:
    """A secret that was put in the place of an expression must not be shown."""
    with pytest.raises(ValueError, match="RE2") as raised:
        FullMatch(pattern)
    assert str(raised.value) == f"is not a regular expression in the syntax of RE2: {reason}"


def test_it_is_equal_to_one_of_the_same_pattern() -> None:
    """A reload keeps what has not changed."""
    assert FullMatch("a.*") == FullMatch("a.*") != FullMatch("a.+")
