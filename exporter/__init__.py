"""Prometheus exporter for concurrency slots and task queues."""

from importlib.metadata import version

__version__ = version("concurrency-exporter")
