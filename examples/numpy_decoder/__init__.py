"""Decode ``.narrow`` files with Python's standard library and NumPy alone.

    python examples/numpy_decoder FILE.narrow [MODEL.safetensors] OUT

OUT is a ``.npy`` file; for a set of images it is a folder, where images of 8 bits become ``.pgm``
or ``.ppm`` files, which any viewer opens, and all others ``.npy`` files. MODEL is the codec's file,
where the model is not inside FILE. What is not right ends with one sentence.

This is a proof that what was compressed can be read elsewhere, and a text to port to another
language: it was written from ``docs/format.md`` and ``docs/format-methods.md``, not from narrows,
and uses nothing of it. It is in the order of these pages, says what they say, and does without
anything that would make it faster. It checks the CRCs, the SHA-256 and the limits.

    container.py   the file: frames, JSON, index, checksums
    entropy.py     rans16, which turns words into symbols
    integers.py    method 2: arrays of integers
    reals.py       methods 0 to 2: numbers of all kinds as integers
    model.py       the model: arrays, layers, from codes to a prediction
    prior.py       the codes of methods 3 to 5
    context.py     method 5: images whose pixels a network expects
    decoding.py    a chunk by its method, an item from its chunks

Three things matter when it is ported. Integers are of 64 bits and wrap around. Sums of products are
carried here in float64, whose whole numbers are exact below 2⁵³, so that their order is free. All
other floats are IEEE 754 in binary64, one operation after another, never fused.
"""

from .container import Refused
from .decoding import decode

__all__ = ["Refused", "decode"]
