"""Every model by name, from registry.toml. Imports nothing heavy."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from narrows.exceptions import ParameterError, did_you_mean


class Entry(NamedTuple):
    """The module of a model's class, and one sentence about it."""

    module: str
    sentence: str


with Path(__file__).with_suffix(".toml").open("rb") as file:
    _TABLES = tomllib.load(file)


def _entries(table: dict[str, list[str]]) -> dict[str, Entry]:
    return {name: Entry(f"narrows.{module}", words) for name, (module, words) in table.items()}


MODELS = _entries(_TABLES["models"])
# models of images of any size: without a fixed shape, so not for scikit-learn's generic checks
ANY_SIZE = _entries(_TABLES["any_size"])
KNOWN = {**MODELS, **ANY_SIZE}
SHORT_NAMES: dict[str, str] = _TABLES["short_names"]


def find_model(name: str) -> str:
    """The class name meant by ``name``; case, hyphens and underscores are ignored.

    >>> find_model("variational-autoencoder")
    'VariationalAutoencoder'
    """
    wanted = name.lower().replace("-", "").replace("_", "")
    known = {model.lower(): model for model in KNOWN} | SHORT_NAMES
    if wanted not in known:
        close = did_you_mean(name, [*KNOWN, *SHORT_NAMES])
        raise ParameterError(
            f"No model is called {name!r}.{close} `narrows models` lists all {len(KNOWN)}."
        )
    return known[wanted]


def model_class(name: str) -> Any:
    """The class called ``name`` (an exact class name of ``KNOWN``), imported now."""
    return getattr(importlib.import_module(KNOWN[name].module), name)


def notebook_html(estimator: object, parameters: str) -> str:
    """What a notebook shows of a fitted estimator; `report`, a higher room, is imported now.

    ``parameters`` is scikit-learn's view, which is a part of it.
    """
    page: str = importlib.import_module("narrows.report.notebook_view").fitted_html(
        estimator, parameters
    )
    return page
