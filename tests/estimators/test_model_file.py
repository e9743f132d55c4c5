"""One file holds the whole model, and a damaged or hostile one is refused with a sentence."""

import json
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import narrows
from helpers.small_data import TABLES, curve
from narrows.estimators.registry import MODELS, model_class
from narrows.exceptions import FileError, ParameterError
from narrows.io import safetensors_file as storage
from narrows.io import write as writing

X = curve(80)
GOLDEN = Path(__file__).parents[1] / "golden"
IMAGES = np.random.default_rng(0).integers(0, 9, size=(80, 9, 6)).astype(np.uint8)
CONV: dict[str, Any] = {"architecture": "conv", "channels": (2, 3), "hidden_layer_sizes": "auto"}


def small(name: str = "Autoencoder", data: Any = X, **kwargs: Any) -> Any:
    base = {"latent_dim": 2, "max_epochs": 2, "random_state": 0, "hidden_layer_sizes": (4,)}
    return model_class(name)(**{**base, **kwargs}).fit(data)


@pytest.fixture(scope="module")
def model() -> Any:
    return small()


@pytest.fixture
def path(model: Any, tmp_path: Path) -> Path:
    return model.save(tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", TABLES)
def test_everything_comes_back(name: str, tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(X, columns=list("abcdef"))
    est = small(name, frame)
    again = narrows.load(est.save(tmp_path / "m.safetensors"))
    assert type(again) is type(est)
    assert again.get_params() == est.get_params()
    assert again.info() == {**est.info(), "training": again.info()["training"]}
    assert again.info()["training"] == est.info()["training"]
    assert again.history_ == est.history_
    assert list(again.feature_names_in_) == list("abcdef")
    np.testing.assert_array_equal(again.transform(frame), est.transform(frame))
    np.testing.assert_array_equal(again.pca_.reconstruct(frame), est.pca_.reconstruct(frame))
    again.save(tmp_path / "again.safetensors")
    if hasattr(again, "partial_fit"):
        assert again.partial_fit(frame).n_iter_ == est.n_iter_ + 1


@pytest.mark.parametrize("kwargs", [{"tied": True, "linear_path": False}, {"distance": "huber"}])
def test_every_kind_of_network_comes_back(kwargs: dict[str, Any], tmp_path: Path) -> None:
    est = small(**kwargs)
    again = narrows.load(est.save(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(again.reconstruct(X), est.reconstruct(X))


def test_load_of_a_class_refuses_another(path: Path) -> None:
    assert isinstance(narrows.Autoencoder.load(path), narrows.Autoencoder)
    with pytest.raises(ParameterError, match="holds a Autoencoder, not a Variational"):
        narrows.VariationalAutoencoder.load(path)


def test_own_networks_are_asked_for_by_name(tmp_path: Path) -> None:
    f, g = torch.nn.Linear(6, 2), torch.nn.Linear(2, 6)
    est = small(f=f, g=g)
    path = est.save(tmp_path / "m.safetensors")
    again = narrows.load(path, f=torch.nn.Linear(6, 2), g=torch.nn.Linear(2, 6))
    np.testing.assert_array_equal(again.transform(X), est.transform(X))
    with pytest.raises(FileError, match=r"f=\.\.\., g="):
        narrows.load(path)
    with pytest.raises(FileError, match="built differently"):
        narrows.load(path, f=torch.nn.Linear(6, 2, bias=False), g=g)


def test_nothing_is_overwritten_or_half_written(model: Any, path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(FileError, match="exists already"):
        model.save(path)
    assert path.read_bytes() == before
    model.save(path, overwrite=True)
    with pytest.raises(FileError, match="there is no folder"):
        model.save(tmp_path / "no" / "m.safetensors")
    with pytest.raises(FileError, match="give a name"):
        model.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_full_disk_leaves_nothing_behind(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(FileError, match="could not be written: No space left"):
        model.save(tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_is_refused_wherever_it_ends(path: Path) -> None:
    data = path.read_bytes()
    rng = random.Random(0)
    for end in [0, 1, 7, 8, 9, len(data) - 1, *(rng.randrange(len(data)) for _ in range(40))]:
        path.write_bytes(data[:end])
        with pytest.raises(FileError):
            narrows.load(path)


def test_every_flipped_bit_is_refused(path: Path) -> None:
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(150):
        spoiled = bytearray(data)
        where = rng.randrange(len(data))
        spoiled[where] ^= 1 << rng.randrange(8)
        path.write_bytes(spoiled)
        try:
            again = narrows.load(path)
        except FileError:
            continue
        # safetensors pads its header with blanks, and JSON may be spelled in several ways
        assert again.get_params() == narrows.load(_write(path, data)).get_params()


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _edited(path: Path, edit: Any) -> Path:
    """The file with its header changed and its checksum made right again: a forger's work."""
    with safe_open(path, "pt") as stream:
        header = json.loads(stream.metadata()["narrows"])
        tensors = {n: stream.get_tensor(n) for n in stream.keys()}  # noqa: SIM118
    edit(header, tensors)
    text = json.dumps(header, sort_keys=True)
    save_file(tensors, path, {"narrows": text, "sha256": storage._digest(text, tensors)})
    return path


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda h, t: h.update(format=storage.FORMAT + 1), "upgrade narrows"),
        (lambda h, t: h.update(surprise=1), "unknown fields: surprise"),
        (lambda h, t: h.pop("versions"), "missing: versions"),
        (lambda h, t: h["fitted"].update(hook=1), "unknown fields: hook"),
        (lambda h, t: h["fitted"].update({"ho\nok": 1}), "unknown fields: ho ok"),
        (lambda h, t: h.update({"class": "os.system"}), "called 'os.system'"),
        (lambda h, t: h["parameters"].update(latent_dim=-1), "parameters this narrows cannot take"),
        (lambda h, t: h["parameters"].update(evil=1), "parameters this narrows cannot take"),
        (lambda h, t: h["parameters"].update(f="x"), "parameters this narrows cannot take"),
        (lambda h, t: h["fitted"]["choices"].update(activation="tanh"), "output differs"),
        (lambda h, t: h["fitted"]["choices"].update(latent_dim=3), "does not hold a whole"),
        (lambda h, t: h["fitted"]["choices"].update(shape=[10**12]), "choices.shape must be"),
        (lambda h, t: h["fitted"]["choices"].pop("up"), "missing: up"),
        (lambda h, t: h.update(fitted=3), "header"),
        (lambda h, t: h.update({"class": ["x"]}), "does not know"),
        (lambda h, t: h["fitted"].update(rows_=[]), "rows_ must be an object"),
        (lambda h, t: h["fitted"]["layout"].update(dtype="zzz"), "layout.dtype must be"),
        (lambda h, t: h["fitted"]["layout"].update(user_shape=[7]), "does not hold a whole"),
        (lambda h, t: h["fitted"]["choices"].update(hidden=[2**19, 2**19]), "does not hold a wh"),
        (lambda h, t: t.update({"probe.z": t["probe.z"].bfloat16() + 1}), "output differs"),
        (lambda h, t: t.pop("model.f.net.1.weight"), "does not hold a whole"),
        (lambda h, t: t.pop("probe.x"), "does not hold a whole"),
        (lambda h, t: t.pop("scaling.scale"), "does not hold a whole"),
        (lambda h, t: t["model.f.net.1.bias"].add_(5.0), "output differs"),
    ],
)
def test_a_forged_header_is_refused(path: Path, edit: Any, words: str) -> None:
    with pytest.raises(FileError, match=words):
        narrows.load(_edited(path, edit))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileError, match="does not exist"):
        narrows.load(path)
    with pytest.raises(FileError, match="is not a file"):
        narrows.load(tmp_path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(FileError, match="narrows did not write"):
        narrows.load(path)


@pytest.mark.parametrize("text", ["{not", "[" * 100_000, "3", "null"])
def test_a_header_that_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors = {"a": torch.zeros(2)}
    save_file(tensors, path, {"narrows": text, "sha256": storage._digest(text, tensors)})
    with pytest.raises(FileError, match="header cannot be read"):
        narrows.load(path)


def test_networks_that_share_layers_are_copied_and_saved_as_such(tmp_path: Path) -> None:
    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Linear(6, 2)
            self.b = self.a

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(x)

    est = small(f=Shared(), g=torch.nn.Linear(2, 6))
    assert est.model_.f.a is est.model_.f.b
    again = narrows.load(est.save(tmp_path / "m.safetensors"), f=Shared(), g=torch.nn.Linear(2, 6))
    np.testing.assert_array_equal(again.transform(X), est.transform(X))


def test_what_a_run_without_a_number_left_is_still_json(tmp_path: Path) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with pytest.warns(ConvergenceWarning):
        est = small(learning_rate=1e30)
    text = json.dumps(est.info(), allow_nan=False)
    again = narrows.load(est.save(tmp_path / "m.safetensors"))
    assert again.info() == json.loads(text)
    assert again.info()["training"]["loss"] is None
    assert again.info()["training"]["validation"] == est.best_loss_


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a file was executed",))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FileError):
        narrows.load(path)
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")  # a header of four exabytes
    with pytest.raises(FileError):
        narrows.load(path)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.safetensors")), ids=lambda p: p.stem)
def test_every_older_format_still_loads(path: Path) -> None:
    """The probe inside each golden file is checked by ``load`` itself."""
    est = narrows.load(path)
    data = IMAGES if est.input_shape_ == (9, 6) else X
    assert est.transform(data).shape == (80, 2)


def test_there_is_a_golden_file_of_every_format_and_model() -> None:
    have = {p.stem for p in GOLDEN.glob("*.safetensors")}
    assert {f"v{storage.FORMAT}-{name}" for name in [*MODELS, "conv"]} <= have


@pytest.mark.parametrize("name", TABLES)
def test_pickling_for_joblib_works(name: str) -> None:
    est = small(name)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(est)).transform(X), est.transform(X))


def test_a_file_keeps_the_seed_of_its_fit(tmp_path: Path) -> None:
    """Whatever the kind of fit: a later warm start must not validate on rows once trained on."""
    rows = np.random.default_rng(0).normal(size=(60, 6))
    made = (
        narrows.Autoencoder(latent_dim=2).partial_fit(rows),
        narrows.Codec(max_epochs=1).fit(rows),
    )
    for i, model in enumerate(made):
        again = narrows.load(model.save(tmp_path / f"{i}.safetensors"))
        assert again.state_.seed == model.state_.seed
