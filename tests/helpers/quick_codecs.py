"""Codecs of patches that learn from a few: what they are good for is of no matter to a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def few_patches() -> Iterator[None]:
    """An epoch of few patches, and few numbers that are counted and measured."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("narrows.training.patches.MIN_PATCHES", 32)
        patched.setattr("narrows.compression.codec_setup.VALIDATION_PATCHES", 16)
        patched.setattr("narrows.compression.quantize_weights.COUNTED_NUMBERS", 1 << 17)
        patched.setattr("narrows.compression.quantize_weights.MEASURED_NUMBERS", 1 << 15)
        yield
