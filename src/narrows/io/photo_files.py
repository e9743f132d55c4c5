"""From which file to which: what is to be written is settled before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from narrows.exceptions import FileError, InputError
from narrows.io.image_folders import find_images, nothing_in
from narrows.io.write import check_output

__all__ = ["WRITABLE", "Pair", "counterparts", "find_photographs", "plan"]

# what can be written; more can be read
WRITABLE = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")

Pair = tuple[Path, Path]  # what is read, and what is written
INSTEAD = ".png"  # for formats that are read and not written


def find_photographs(folder: str | Path) -> list[Path]:
    """The photographs in a folder and its subfolders, in natural order; hidden ones passed over.

    Raises InputError where there are none.
    """
    found = find_images(Path(folder))
    if not found:
        raise InputError(nothing_in(Path(folder)))
    return found


def plan(given: str | Path, out: str | Path, *, overwrite: bool = False) -> list[Pair]:
    """Which file each photograph of ``given`` is written to.

    ``given`` is an image or a folder of them. ``out`` is a file or a folder for one image, and a
    folder for a folder, whose names and subfolders are kept; formats that are read and not written
    become .png.

    Raises FileError where ``out`` is no place to write to, is or lies in what is given, or is there
    already and ``overwrite`` is false; InputError where there is no image, or two would go to one
    file.
    """
    given, place = Path(given), Path(out)
    if not given.exists():
        raise FileError(f"'{given}' does not exist: give an image, or a folder of images.")
    if not given.is_dir() and not _names_a_folder(out):
        pairs = [(given, place)]
        _check_not_given(pairs)
        check_output(place, WRITABLE, overwrite=overwrite)
        return pairs
    _check_folder(given, place)
    folder = given if given.is_dir() else given.parent
    sources = find_photographs(given) if given.is_dir() else [given]
    pairs = [(path, place / _renamed(path.relative_to(folder))) for path in sources]
    _check_not_given(pairs)
    _check_apart(pairs)
    _check_free([target for _, target in pairs], overwrite)
    return pairs


def _names_a_folder(out: str | Path) -> bool:
    return str(out).endswith(("/", os.sep)) or Path(out).is_dir()


def _renamed(path: Path) -> Path:
    return path if path.suffix.lower() in WRITABLE else path.with_suffix(INSTEAD)


def _check_folder(given: Path, place: Path) -> None:
    """Whether ``place`` may be the folder that is written to."""
    if place.exists() and not place.is_dir():
        raise FileError(f"'{place}' is a file: give a folder to write to.")
    if not place.exists() and place.suffix.lower() in WRITABLE:
        raise FileError(f"'{given}' is a folder, and '{place}' names a file: give a folder.")
    if given.is_dir() and place.resolve().is_relative_to(given.resolve()):
        raise FileError(
            f"'{place}' is or lies in '{given}', where the images are: give a folder elsewhere."
        )
    above = place if place.exists() else place.parent
    if not above.is_dir() or not os.access(above, os.W_OK):
        what = "may not be written to" if above.is_dir() else "does not exist"
        raise FileError(f"Cannot write to '{place}': the folder '{above}' {what}.")


def _check_not_given(pairs: Sequence[Pair]) -> None:
    sources = {source.resolve() for source, _ in pairs}
    for _, target in pairs:
        if target.resolve() in sources:
            raise FileError(f"'{target}' is one of the images given: write to another place.")


def _check_apart(pairs: Sequence[Pair]) -> None:
    first: dict[Path, Path] = {}
    for source, target in pairs:
        other = first.setdefault(target, source)
        if other != source:
            raise InputError(
                f"'{other}' and '{source}' would both be written to '{target}': rename one of them."
            )


def _check_free(targets: Sequence[Path], overwrite: bool) -> None:
    taken = [t for t in targets if t.is_dir() or (t.exists() and not overwrite)]
    if not taken:
        return
    more = f" (and {len(taken) - 1} others)" if len(taken) > 1 else ""
    advice = "choose another folder, or give --overwrite (overwrite=True in Python)"
    if taken[0].is_dir():
        advice = "it is a folder; choose another one to write to"
    raise FileError(f"'{taken[0]}'{more} exists already; {advice}.")


def counterparts(pairs: Sequence[Pair], given: str | Path, others: str | Path) -> dict[Path, Path]:
    """For each source of ``pairs``, the image of the same name in ``others``.

    ``others`` is an image where ``given`` is one, and else a folder laid out as it is; suffixes may
    differ. Raises FileError where one is missing.
    """
    given, others = Path(given), Path(others)
    if given.is_file() and others.is_file():
        return {source: others for source, _ in pairs}
    root = given if given.is_dir() else given.parent
    known = {path.relative_to(others).with_suffix(""): path for path in find_photographs(others)}
    found = {}
    for source, _ in pairs:
        name = source.relative_to(root).with_suffix("")
        if name not in known:
            raise FileError(f"There is no image '{others / name}' beside '{source}': add it.")
        found[source] = known[name]
    return found
