"""What is answered to the Accept headers that scrapers, browsers and vandals send."""

import pytest

from exporter.metrics.text import Format
from exporter.web.negotiation import accepts_gzip, negotiate

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
CLASSIC_1 = "text/plain; version=1.0.0; charset=utf-8"
UTF_8 = "; escaping=allow-utf-8"

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_3_TEXT_FIRST = (
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "application/openmetrics-text;version=0.0.1;q=0.3,*/*;q=0.1"
)
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        pytest.param(PROMETHEUS_2, OPENMETRICS, id="prometheus-2"),
        pytest.param(PROMETHEUS_3, OPENMETRICS + UTF_8, id="prometheus-3"),
        pytest.param(PROMETHEUS_3_TEXT_FIRST, CLASSIC_1 + UTF_8, id="prometheus-3-text-first"),
        pytest.param(f"{PROTOBUF};escaping=allow-utf-8;q=0.6,{PROMETHEUS_3}", OPENMETRICS + UTF_8, id="protobuf-first"),
        pytest.param(f"{PROTOBUF};q=0.7,text/plain;version=0.0.4;q=0.3", CLASSIC, id="protobuf-of-prometheus-2"),
        pytest.param(PROTOBUF, CLASSIC, id="only-protobuf"),
        pytest.param(CHROME, CLASSIC, id="chrome"),
        pytest.param("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", CLASSIC, id="firefox"),
        pytest.param("*/*", CLASSIC, id="curl"),
        pytest.param("", CLASSIC, id="none"),
        pytest.param("text/*", CLASSIC, id="any-text"),
        pytest.param("text/plain", CLASSIC, id="text"),
        pytest.param("text/plain;version=0.0.4", CLASSIC, id="text-0.0.4"),
        pytest.param("text/plain;version=1.0.0", CLASSIC_1, id="text-1.0.0"),
        pytest.param("text/plain;version=0.0.3", CLASSIC, id="text-0.0.3"),
        pytest.param("application/openmetrics-text", OPENMETRICS, id="openmetrics"),
        pytest.param(
            "application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS, id="openmetrics-charset"
        ),
        pytest.param("Application/OpenMetrics-Text;Version=1.0.0;Q=1", OPENMETRICS, id="upper-case"),
        pytest.param('application/openmetrics-text;version="1.0.0"', OPENMETRICS, id="quoted-version"),
        pytest.param("application/openmetrics-text;version=0.0.1", CLASSIC, id="openmetrics-0.0.1"),
        pytest.param("application/openmetrics-text;version=2.0.0", CLASSIC, id="openmetrics-2"),
        pytest.param("application/openmetrics-text;q=0,*/*", CLASSIC, id="openmetrics-refused"),
        pytest.param("text/plain;q=0.5,application/openmetrics-text;q=0.6", OPENMETRICS, id="by-quality"),
        pytest.param("text/plain;q=0.6,application/openmetrics-text;Q=0.5", CLASSIC, id="by-quality-in-upper-case"),
        pytest.param("text/plain,application/openmetrics-text", CLASSIC, id="equal-so-the-first"),
        pytest.param("application/openmetrics-text,text/plain", OPENMETRICS, id="equal-so-the-other-first"),
        pytest.param("application/openmetrics-text ; version = 1.0.0 ; q = 0.9 , */*", OPENMETRICS, id="spaces"),
        pytest.param("application/openmetrics-text;version=x", CLASSIC, id="bad-version"),
        pytest.param("application/openmetrics-text;q=x", CLASSIC, id="bad-quality"),
        pytest.param("application/openmetrics-text;q=", CLASSIC, id="no-quality"),
        pytest.param("application/openmetrics-text;q=nan", CLASSIC, id="nan"),
        pytest.param("application/openmetrics-text;q=-1", CLASSIC, id="negative-quality"),
        pytest.param(";;;", CLASSIC, id="semicolons"),
        pytest.param(",,,", CLASSIC, id="commas"),
        pytest.param("=;=,=", CLASSIC, id="equals"),
        pytest.param("ÿ\0\x1b[2J;q=1", CLASSIC, id="binary"),
        pytest.param(f"application/openmetrics-text;{'x' * 10_000}", OPENMETRICS, id="long-parameter"),
        pytest.param("a/b;q=0.1," * 1_000 + "application/openmetrics-text;q=0.2", OPENMETRICS, id="10-kB"),
        pytest.param("application/openmetrics-text;" + ";" * 10_000, OPENMETRICS, id="10-kB-of-semicolons"),
        *(
            pytest.param(f"text/plain;version=1.0.0;escaping={scheme}", f"{CLASSIC_1}; escaping={scheme}", id=scheme)
            for scheme in ("allow-utf-8", "underscores", "dots", "values")
        ),
        pytest.param("text/plain;version=0.0.4;escaping=dots", f"{CLASSIC}; escaping=dots", id="escaping-of-0.0.4"),
        pytest.param("application/openmetrics-text;escaping=rot13", OPENMETRICS, id="unknown-escaping"),
        pytest.param("application/openmetrics-text;escaping=", OPENMETRICS, id="empty-escaping"),
        pytest.param("application/openmetrics-text;escaping=a\r\nX-Evil: 1", OPENMETRICS, id="escaping-with-a-newline"),
    ],
)
def test_accept(accept: str, content_type: str) -> None:
    format_ = Format.OPENMETRICS if content_type.startswith("application/openmetrics-text") else Format.CLASSIC
    assert negotiate(accept) == (format_, content_type)


@pytest.mark.parametrize(
    ("accept_encoding", "gzip"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("gzip, deflate, br, zstd", True),
        ("deflate,gzip;q=0.5", True),
        ("gzip;q=1.0", True),
        ("gzip; q=0.001", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000, identity", False),
        ("gzip;Q=0", False),
        ("identity", False),
        ("identity;q=1, gzip;q=0.5", True),
        ("br", False),
        ("xgzip", False),
        ("gzipped", False),
        ("*", False),
        ("gzip;q=x", False),
        (";;;", False),
        ("a," * 5_000 + "gzip", True),
    ],
    ids=lambda value: str(value)[:30],
)
def test_accept_encoding(accept_encoding: str, gzip: bool) -> None:
    assert accepts_gzip(accept_encoding) is gzip
