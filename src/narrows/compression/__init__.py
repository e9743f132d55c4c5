"""Compression: the Codec, .narrow files, and the comparison with other coders.

The names in ``__all__`` are all that other rooms import. Each is loaded when it is first used:
neither the command's help nor reading a .narrow file needs torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narrows.compression.codec import Codec
    from narrows.compression.compression_summary import compress_file, fit_summary, report_lines
    from narrows.compression.decompress_files import (
        Decompressed,
        decompress,
        decompress_item,
        decompress_to,
        decompress_to_stream,
        load_model,
        opened,
    )
    from narrows.compression.format.container import Lost
    from narrows.compression.format.pack import Unpacker
    from narrows.compression.inspection import describe_file, describe_item, description_lines

__all__ = [
    "Codec",
    "Decompressed",
    "Lost",
    "Unpacker",
    "compress_file",
    "decompress",
    "decompress_item",
    "decompress_to",
    "decompress_to_stream",
    "describe_file",
    "describe_item",
    "description_lines",
    "fit_summary",
    "load_model",
    "opened",
    "report_lines",
]
MODULES = {
    "codec": ("Codec",),
    "compression_summary": ("compress_file", "fit_summary", "report_lines"),
    "decompress_files": (
        "Decompressed",
        "decompress",
        "decompress_item",
        "decompress_to",
        "decompress_to_stream",
        "load_model",
        "opened",
    ),
    "format.container": ("Lost",),
    "format.pack": ("Unpacker",),
    "inspection": ("describe_file", "describe_item", "description_lines"),
}


def __getattr__(name: str) -> Any:
    for module, names in MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
