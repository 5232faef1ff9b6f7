"""Routes below a prefix and behind a proxy, as Prometheus has them."""

import pytest

from exporter.settings.reader import ConfigError
from exporter.web.location import Base, location


@pytest.mark.parametrize(
    ("external_url", "route_prefix", "prefix", "external", "host"),
    [
        (None, None, "", Base("", ""), ""),
        (None, "/", "", Base("", ""), ""),
        (None, "", "", Base("", ""), ""),
        (None, "a", "/a", Base("", ""), ""),
        (None, "//a/b//", "/a/b", Base("", ""), ""),
        ("http://example.com", None, "", Base("http", ""), "example.com"),
        ("https://Example.com:443/a/", None, "/a", Base("https", "/a"), "example.com"),
        ("http://[::1]:8080/a/b", "/", "", Base("http", "/a/b"), "[::1]:8080"),
        ("http://example.com:80/a", "/c", "/c", Base("http", "/a"), "example.com"),
        ("http://example.com:443/-/x_y.z~", None, "/-/x_y.z~", Base("http", "/-/x_y.z~"), "example.com:443"),
    ],
)
def test_what_the_flags_mean(
    external_url: str | None, route_prefix: str | None, prefix: str, external: Base, host: str
) -> None:
    found = location(external_url, route_prefix)
    assert (found.prefix, found.external, found.external_host) == (prefix, external, host)


URL = "is not a URL like https://example.com/concurrency"
PATH = "is not a path like /concurrency"


@pytest.mark.parametrize(
    ("external_url", "route_prefix", "mistakes"),
    [
        ("", None, [f"--web.external-url=: {URL}"]),
        ("example.com/a", None, [f"--web.external-url=example.com/a: {URL}"]),
        ("ftp://example.com", None, [f"--web.external-url=ftp://example.com: {URL}"]),
        ("http://", None, [f"--web.external-url=http://: {URL}"]),
        ("http://example.com:x/", None, [f"--web.external-url=http://example.com:x/: {URL}"]),
        ("http://[::1/a", None, [f"--web.external-url=http://[::1/a: {URL}"]),
        ("http://u:p@example.com/", None, [f"--web.external-url=http://u:p@example.com/: {URL}"]),
        ("http://example.com/?a", None, [f"--web.external-url=http://example.com/?a: {URL}"]),
        ('"http://example.com/"', None, [f'--web.external-url="http://example.com/": {URL}']),
        ("http://example.com/a b", None, [f"--web.external-url=http://example.com/a b: {PATH}"]),
        (None, "/a/../b", [f"--web.route-prefix=/a/../b: {PATH}"]),
        (None, "/a//b", [f"--web.route-prefix=/a//b: {PATH}"]),
        (None, "/{a}", [f"--web.route-prefix=/{{a}}: {PATH}"]),
        ("http:", "é", [f"--web.external-url=http:: {URL}", f"--web.route-prefix=é: {PATH}"]),
    ],
)
def test_what_they_can_not_mean(external_url: str | None, route_prefix: str | None, mistakes: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        location(external_url, route_prefix)
    assert raised.value.mistakes == mistakes
