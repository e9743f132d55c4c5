"""The .narrow file: all that reading and writing it needs, in NumPy and the standard library.

From the file to its numbers:

    pack             arrays to files and back
    container        Writer, Reader: header, items, chunks, index, checksum
    frames           the parts of a file, checks on their order, the index
    header           the fields of a file's header and of each item
    chunk_methods    how one chunk is coded: all methods are tried, the smallest wins
    error_bound      numbers within a largest error
    lossless         numbers exactly: raw, deflate, as integers
    integer_arrays   arrays of integers: the search for the best plan
    predictors       differences and interpolation
    residual_tokens  residuals as tokens, and their frequency tables
    entropy_coder    interleaved rANS

and the model, in whole numbers, so that every machine decodes the same bits:

    decoder           chunks as grids of cells, codes to values in the user's units
    integer_networks  exact layers; the bytes of a model
    latent_codes      codes of the autoencoder by a factorised or conditional prior
    context_model     8-bit images pixel by pixel

docs/format.md and docs/format-methods.md specify every byte.
"""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
