"""Model files of older formats, brought to the present one.

1 → 2: a 2-D convolutional network folds its feature maps with the channels last.
"""

from __future__ import annotations

from torch import Tensor, nn

from narrows.parts.model import Model
from narrows.parts.networks.architectures import FlattenLast, UnflattenLast


def migrate(tensors: dict[str, Tensor], version: int, model: Model) -> dict[str, Tensor]:
    """The tensors of a file of format ``version``, for the ``model`` that is built today."""
    return _channels_last(tensors, model) if version < 2 else tensors


def _channels_last(tensors: dict[str, Tensor], model: Model) -> dict[str, Tensor]:
    new = dict(tensors)
    channels = [m.shape[-1] for m in model.g.modules() if isinstance(m, UnflattenLast)]
    for name, layers in model.named_modules():
        if not isinstance(layers, nn.Sequential):
            continue
        for i, layer in enumerate(layers):
            if isinstance(layer, FlattenLast):
                _reorder(new, f"model.{name}.{i + 1}.weight", channels[0], 1)
            if isinstance(layer, UnflattenLast):  # a linear layer and its activation come before
                for part in ("weight", "bias"):
                    _reorder(new, f"model.{name}.{i - 2}.{part}", channels[0], 0)
    return new


def _reorder(tensors: dict[str, Tensor], name: str, channels: int, axis: int) -> None:
    """One axis from (C, H·W) to (H·W, C), both folded."""
    given = tensors[name]
    unfolded = given.unflatten(axis, (channels, -1))
    tensors[name] = unfolded.movedim(axis, axis + 1).reshape(given.shape)
