"""Networks that stylize photos, and their files."""

from impasto.networks.files import (
    FORMAT,
    NETWORKS,
    NetworkError,
    describe,
    find_network,
    load_network,
    published_metadata,
    published_networks,
    published_styles,
    save_network,
    upgraded,
)
from impasto.networks.transform import TransformNet

__all__ = [
    "FORMAT", "NETWORKS", "NetworkError", "TransformNet",
    "describe", "find_network", "load_network", "published_metadata", "published_networks",
    "published_styles", "save_network", "upgraded",
]  # fmt: skip
