"""Prometheus exporter for concurrency slots and task queues."""

__version__: str
"""As it is installed; looked up when it is asked for, since the command has to start before it can be slow."""


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("concurrency-exporter")
    raise AttributeError(name)
