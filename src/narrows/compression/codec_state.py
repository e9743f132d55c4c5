"""What a Codec learns, and what of it a model file holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from narrows.compression.codec_network import CodecNetwork
from narrows.compression.codec_setup import CodecConfig
from narrows.compression.format.integer_networks import Payload
from narrows.compression.quantize_weights import quantize_model
from narrows.estimators.fitted_state import FittedState
from narrows.estimators.pca import PCA

ERRORS = ("bits_per_number", "mse")  # of the default level, on the validation rows


@dataclass(frozen=True, kw_only=True)
class CodecState(FittedState):
    """What a Codec learns.

    ``payload`` is the quantised model that files are decoded with, ``levels`` the rate and error of
    each level; both are known after training. ``pca`` (of the cells) and ``validation_sample``,
    from which a checkpoint's payload is made, are known during training only.
    """

    keys: ClassVar[frozenset[str]] = FittedState.keys | {"levels", "layout"}

    model: CodecNetwork
    config: CodecConfig
    payload: Payload | None = None
    levels: list[dict[str, float]] = field(default_factory=list)
    pca: PCA | None = None
    validation_sample: Tensor | None = None

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors of a file, and what its header holds under "fitted"."""
        tensors, header = super().to_tensors()
        payload = self.payload
        if payload is None:  # a checkpoint: training has not ended
            assert self.validation_sample is not None
            level, samples = len(self.config.sigmas) // 2, [self.validation_sample]
            payload = quantize_model(self.model, self.config, level, samples, self.objective)
        tensors["payload"] = torch.from_numpy(np.frombuffer(payload.data, np.uint8).copy())
        layout = None if self.layout is None else asdict(self.layout)
        return tensors, {**header, "levels": self.levels, "layout": layout}
