"""Prefect's work pools, queues and limits: the settings of such a source, and a snapshot read over its REST API."""

from exporter.sources.prefect.config import NameFilter, PrefectConfig

__all__ = ["NameFilter", "PrefectConfig"]
