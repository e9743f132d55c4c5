"""What a denoiser answers goes back into the axes and the dtype of the image that it was given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from narrows.exceptions import InputError
from narrows.io.photographs import as_stored, check_image

PLANES = torch.tensor([[[0.0, 10.0]], [[1.0, 20.4]], [[5.0, 99.0]]])  # 3 channels of 1 × 2


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 1)])
def test_colours_become_the_grey_of_their_mean(shape: tuple[int, ...]) -> None:
    found = as_stored(PLANES, np.zeros(shape))
    assert found.shape == shape
    np.testing.assert_allclose(found.ravel(), [2.0, 43.1333], rtol=1e-5)


def test_grey_fills_every_channel_and_colours_keep_theirs() -> None:
    grey = as_stored(PLANES[2:], np.zeros((1, 2, 3), np.float32))
    np.testing.assert_array_equal(grey, [[[5, 5, 5], [99, 99, 99]]])
    colours = as_stored(PLANES, np.zeros((1, 2, 3), np.float32))
    np.testing.assert_array_equal(colours, np.float32([[[0, 1, 5], [10, 20.4, 99]]]))
    assert grey.dtype == colours.dtype == np.float32 and colours.flags.c_contiguous


@pytest.mark.parametrize(
    ("dtype", "wanted", "stored"),
    [("uint8", [0, 0, 1, 2, 255], "uint8"), ("uint16", [0, 0, 1, 2, 65535], "uint16"),
     ("int16", [0, 0, 1, 2, 32767], "int16"), ("bool", [0, 0, 1, 2, 255], "uint8"),
     ("int32", [0, 0, 1, 2, 65535], "int32")],
)  # fmt: skip
def test_integers_are_rounded_and_kept_between_black_and_the_largest(
    dtype: str, wanted: list[int], stored: str
) -> None:
    values = torch.tensor([[[-7.0, 0.4, 0.6, 1.5, 1e6]]])
    found = as_stored(values, np.zeros((1, 5), dtype))
    assert found.dtype == stored
    assert found.ravel().tolist() == wanted


@pytest.mark.parametrize("largest", [1.1e9, -2e12, 3e38])
def test_one_value_that_float32_cannot_square_is_refused_with_a_way_out(largest: float) -> None:
    image = np.full((4, 5), 0.5, np.float32)
    assert check_image(image, "photo").shape == (4, 5)
    image[2, 3] = largest
    with pytest.raises(InputError, match=r"photo holds values up to .*; divide it by its white"):
        check_image(image, "photo")
    check_image(image / np.abs(image).max(), "photo")
