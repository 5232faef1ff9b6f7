"""Global, tag and deployment limits, and the names of their deployments."""

from exporter.demo.rows import ident
from tests.harness.inprocess import OneSource
from tests.harness.lookalike import ALL, DEPLOYMENTS, LIMITS, POOLS, asked, limit, small, snapshot_of
from tests.harness.upstream import serve


async def test_the_names_of_deployments_are_asked_for_once() -> None:
    fake = small()
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["limits"]) as exporter:
        await exporter.poll()
        asked(upstream)
        await exporter.poll()
        assert asked(upstream) == [POOLS, LIMITS]
        gone = ident("deployment", "gone")
        fake.limits.append(limit(f"deployment:{gone}"))
        snapshot = snapshot_of(await exporter.poll())
        # The name of one that is gone is not found.
        assert asked(upstream) == [POOLS, LIMITS, DEPLOYMENTS]
        assert {(one.kind, one.name) for one in snapshot.limits} == {
            ("global", "database"),
            ("tag", "gpu"),
            ("deployment", "etl/nightly"),
            ("deployment", str(gone)),
        }


async def test_limits_whose_long_names_begin_alike_cost_no_other_limit() -> None:
    """A tag's name is published without its kind."""
    fake = small()
    fake.limits += [limit(f"{kind}{'l' * 1_200}{number}") for kind in ("", "tag:") for number in range(2)]
    fake.limits += [limit("tag:" + "L" * 1_000), limit("tag:" + "m" * 1_001)]
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        snapshot = snapshot_of(await exporter.poll())
    assert {one.name for one in snapshot.limits} == {"L" * 1_000, "database", "gpu", "etl/nightly"}
    assert [(one.part, one.reason) for one in snapshot.unreadable] == [("limits", "too_large")] * 5
