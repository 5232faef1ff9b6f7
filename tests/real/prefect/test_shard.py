"""Shards of a real Prefect server."""

from exporter.config import Config
from exporter.shard import Shard
from tests.harness.inprocess import Exporter
from tests.harness.prefect import PrefectServer
from tests.harness.scenario import POOLS
from tests.harness.shards import assert_that_together_they_are, labels_of, polled


async def test_of_a_real_server(prefect_server: PrefectServer) -> None:
    config = {"system": "prefect", "name": "prefect", "url": prefect_server.api_url}
    configs = Config.model_validate({"sources": [config]}).sources
    whole = await polled(configs)
    kinds = {key[0].split("_")[1] for key in whole.observed}
    assert kinds == {"queue", "pool", "limit"}
    for total in range(1, 6):
        shards = [await polled(configs, Shard(index, total)) for index in range(total)]
        assert_that_together_they_are(whole, shards)
        for index, shard in enumerate(shards):
            assert shard.observed, "there is something for each to do"
            labels = frozenset({"source": "prefect", "system": "prefect", "shard": str(index)}.items())
            assert shard.own["concurrency_exporter_source_shards", labels] == total
    # Every pool has a queue of this name.
    of_pools = [labels for labels in labels_of(shards[0].observed) if labels.get("queue") == "default"]
    assert 0 < len({labels["pool"] for labels in of_pools}) < len(POOLS)


async def test_a_reload_keeps_what_a_shard_has(prefect_server: PrefectServer) -> None:
    settings = {"system": "prefect", "name": "prefect", "url": prefect_server.api_url}
    (config,) = Config.model_validate({"sources": [settings]}).sources
    async with Exporter(config, shard=Shard(1, 2)) as exporter:
        before = await exporter.poll("prefect")
        assert before.published
        (same,) = Config.model_validate({"sources": [settings]}).sources
        await exporter.configure(same)
        assert exporter.state("prefect") == before
        (other,) = Config.model_validate({"sources": [settings | {"interval": "20s"}]}).sources
        await exporter.configure(other)
        assert exporter.state("prefect") != before
