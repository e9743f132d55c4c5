"""Opening a .narrow file: from bytes, a path or a stream, with the model in it or beside it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from narrows.compression.format.decoder import Model
from narrows.compression.format.model_payload import Payload
from narrows.compression.format.pack import Unpacker
from narrows.exceptions import Corrupt, FileError, InputTypeError

PAYLOAD = "payload"  # the name of the tensor in a model's file


@contextmanager
def opened(source: Any) -> Iterator[Any]:
    """A binary stream of what is given: bytes, a path, or a stream, which stays open."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    elif isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise FileError(
                f"'{path}' is not there." if not path.exists() else f"'{path}' is no file."
            )
        with path.open("rb") as stream:
            yield stream
    else:
        check_binary(source, "read", "source must be bytes, a path or")
        yield source


def check_binary(stream: Any, verb: str, words: str) -> None:
    """Refuse what does not ``read`` or ``write`` bytes."""
    if not hasattr(stream, verb) or isinstance(stream, io.TextIOBase):
        mode = verb[0] + "b"
        raise InputTypeError(
            f"{words} an open binary file, as open(path, '{mode}') gives it. Got "
            f"{type(stream).__name__} instead."
        )


def load_model(path: str | Path) -> Model:
    """The decoder in a codec's safetensors file; torch is not needed.

    Raises ``FileError`` for a file that holds none.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileError(f"'{path}' is not there; give the file that the codec was saved to.")
    try:
        with safe_open(path, "np") as stream:
            if PAYLOAD not in set(stream.keys()):
                raise FileError(f"'{path}' holds no codec; fit one: narrows fit --model codec.")
            data = stream.get_tensor(PAYLOAD).tobytes()
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise FileError(
            f"'{path}' is no readable model file; it is damaged, or no model."
        ) from error
    return Model(Payload.from_bytes(data))


def decompress(source: Any, model: Any = None, *, max_bytes: int = 1 << 31) -> Any:
    """See `narrows.decompress`."""
    if isinstance(model, str | Path):
        model = load_model(model)
    elif hasattr(model, "decoder_"):
        model = model.decoder_
    if not isinstance(model, Model | None):
        raise InputTypeError(
            f"model must be a fitted Codec or the path of its file. Got {type(model).__name__}, "
            "which is not fitted or no codec."
        )
    with opened(source) as stream:
        unpacker = Unpacker(stream, model, max_bytes=max_bytes)
        arrays = [array for _, array in unpacker]
        if not arrays and not unpacker.wish.images:
            raise Corrupt("the file is empty: it holds no array")
        return arrays if unpacker.wish.images or len(arrays) > 1 else arrays[0]
