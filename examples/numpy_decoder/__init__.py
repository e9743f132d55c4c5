"""Decode ``.narrow`` files with Python's standard library and NumPy alone.

    python examples/numpy_decoder FILE.narrow [MODEL.safetensors] OUT

OUT is a ``.npy`` file; for a set of images it is a folder, where images of 8 bits become ``.pgm``
or ``.ppm`` files, which any viewer opens, and all others ``.npy`` files. MODEL is the codec's file,
if FILE does not embed the model. A file that is not right ends the program with one sentence.

This shows that .narrow files can be read without narrows, and is meant to be ported to other
languages: it was written from ``docs/format.md`` and ``docs/format-methods.md`` alone and imports
nothing of narrows. It follows the order of these pages and prefers clarity to speed. It checks the
CRCs, the SHA-256 and the limits.

    container.py   the file: frames, JSON, index, checksums
    entropy.py     rans16, which turns words into symbols
    integers.py    method 2: arrays of integers
    reals.py       methods 0 to 2: numbers of all kinds as integers
    model.py       the model: arrays, layers, from codes to a prediction
    prior.py       the codes of methods 3 to 5
    context.py     method 5: images whose pixels a network predicts
    decoding.py    a chunk by its method, an item from its chunks

Three things matter in a port. Integers have 64 bits and wrap around. Sums of products are computed
in float64, where integers below 2⁵³ are exact, so that their order does not matter. All other
floats are IEEE 754 binary64, one operation after another, never fused.
"""

from .container import Refused
from .decoding import decode

__all__ = ["Refused", "decode"]
