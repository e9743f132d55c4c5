"""Maps of the manifold: how good a map is, how many dimensions data have, and the shortest paths.

The names in ``__all__`` are all that other rooms import. Each is loaded when it is first used:
torch, scikit-learn and scipy take seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narrows.maps.dimension import Dimension, intrinsic_dimension
    from narrows.maps.explorer import Explorer
    from narrows.maps.geometry import Geodesic, geodesic, magnification, path_length
    from narrows.maps.map_page import write_map
    from narrows.maps.map_quality import (
        continuity,
        distance_correlation,
        neighbourhood_hit,
        trustworthiness,
    )
    from narrows.maps.map_scores import MapScore, compare_maps

__all__ = [
    "Dimension",
    "Explorer",
    "Geodesic",
    "MapScore",
    "compare_maps",
    "continuity",
    "distance_correlation",
    "geodesic",
    "intrinsic_dimension",
    "magnification",
    "neighbourhood_hit",
    "path_length",
    "trustworthiness",
    "write_map",
]

FILES = {
    "map_scores": "MapScore compare_maps",
    "map_page": "write_map",
    "explorer": "Explorer",
    "dimension": "Dimension intrinsic_dimension",
    "geometry": "Geodesic geodesic magnification path_length",
    "map_quality": "continuity distance_correlation neighbourhood_hit trustworthiness",
}


def __getattr__(name: str) -> Any:
    for file, names in FILES.items():
        if name in names.split():
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
