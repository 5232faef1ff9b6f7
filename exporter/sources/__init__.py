"""The systems that can be read: one module each, and one word each in `AnySource`."""

from typing import Annotated, Final, get_args

from pydantic import Field

from exporter.sources.base import SourceConfig
from exporter.sources.cloro import CloroConfig
from exporter.sources.prefect import PrefectConfig

AnySource = Annotated[PrefectConfig | CloroConfig, Field(discriminator="system")]

SYSTEMS: Final[dict[str, type[SourceConfig]]] = {
    get_args(config.model_fields["system"].annotation)[0]: config for config in get_args(get_args(AnySource)[0])
}
"""The configurations of the union, by the word that chooses them."""
