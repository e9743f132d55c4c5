"""fit --model denoiser and denoise as one types them, with the real Denoiser."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from helpers.command import done, picture, refused, run

TINY = ("--channels", "4,8", "--patch-size", "16", "--max-epochs", "2", "--seed", "0")


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    grey = load_sample_image("flower.jpg").mean(-1)[100:228, 150:278]
    return grey.round().astype(np.uint8)


@pytest.fixture(scope="module")
def folder(clean: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clean photographs of two sizes."""
    folder = tmp_path_factory.mktemp("photos")
    for i, part in enumerate((clean[:64], clean[64:], clean[:, :48], clean[:, 48:])):
        Image.fromarray(part).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "d.safetensors"
    said = done("fit", folder, "--model", "denoiser", "-o", path, *TINY)
    assert "4 images, grey" in said
    before, after = map(float, re.findall(r"([\d.]+) dB", said))
    assert after > before + 1
    assert f"narrows denoise DATA -m {path} -o OUT" in said
    return path


def test_a_folder_is_denoised_by_a_model(model: Path, clean: np.ndarray, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    (scans / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    noisy = (clean + rng.normal(0, 25, clean.shape)).round().clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(scans / "a.png")
    Image.fromarray(np.dstack([noisy[:30]] * 3)).save(scans / "deep" / "b.jpg")
    said = done("denoise", scans, "-m", model, "-o", tmp_path / "out")
    assert re.search(r"a.png: 128 × 128, noise 2[2-9]", said)
    restored = picture(tmp_path / "out" / "a.png").astype(float)
    assert np.abs(restored - clean).mean() < 0.7 * np.abs(noisy.astype(float) - clean).mean()
    assert picture(tmp_path / "out" / "deep" / "b.jpg").shape == (30, 128, 3)


def test_noisy_images_alone_are_enough(clean: np.ndarray, tmp_path: Path) -> None:
    path, noisy = tmp_path / "n.safetensors", tmp_path / "noisy"
    noisy.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).normal(0, 20, clean.shape)
        Image.fromarray((clean + noise).clip(0, 255).astype(np.uint8)).save(noisy / f"{i}.png")
    said = done("fit", noisy, "--model", "denoiser", "--noisy-targets", "-o", path, *TINY)
    assert "no clean images" in said


def test_one_image_is_enough_and_its_page_has_the_filters(
    clean: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    noisy = (clean + rng.normal(0, 25, clean.shape)).round().clip(0, 255).astype(np.uint8)
    for name, pixels in (("noisy", noisy), ("clean", clean)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    page = tmp_path / "page.html"
    monkeypatch.setattr("narrows.cli.denoise.MAX_EPOCHS", 1)  # not a time, which a machine decides
    words = ("--max-time", "10m", "--seed", "0", "--clean", tmp_path / "clean.png")
    out = tmp_path / "out.png"
    said = done("denoise", tmp_path / "noisy.png", "-o", out, *words, "--compare", page)
    before, after = map(float, re.findall(r"PSNR ([\d.]+) → ([\d.]+) dB", said)[0])
    assert after > before
    text = page.read_text(encoding="utf-8")
    assert "non-local means" in text and "total variation" in text


def test_a_damaged_file_is_named_and_the_others_go_on(model: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    Image.fromarray(np.full((20, 20), 9, np.uint8)).save(scans / "a.jpg")
    data = (scans / "a.jpg").read_bytes()
    (scans / "b.jpg").write_bytes(data[: len(data) - 60])
    Image.fromarray(np.full((20, 20), 9, np.uint8)).save(scans / "c.png")
    result = run("denoise", scans, "-m", model, "-o", tmp_path / "out")
    assert result.status == 1
    assert "b.jpg" in result.err and "1 of 3" in result.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "c.png"]


@pytest.mark.parametrize("verb", ["encode", "reconstruct", "report"])
def test_verbs_for_rows_refuse_it(verb: str, model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / ("o.html" if verb == "report" else "o.npy")
    assert "Denoiser" in refused(verb, model, folder, "-o", out)


@pytest.mark.parametrize("name", ["ecg.npy", "table.csv", "rows.npz"])
def test_rows_without_a_model_are_told_of_it_and_the_advice_works(
    name: str, model: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / name, tmp_path / "d.npy"
    rows = np.random.default_rng(0).normal(size=(60, 7)).cumsum(1)
    if path.suffix == ".csv":
        np.savetxt(path, rows, delimiter=",", header="a,b,c,d,e,f,g", comments="")
    else:
        (np.savez if path.suffix == ".npz" else np.save)(path, rows)
    for words in ((), ("-m", model)):
        said = refused("denoise", path, "-o", out, *words)
        assert f"'{path}' is no image" in said and "-m MODEL" in said and ".png" not in said
    advice = re.findall(r"`narrows (fit DATA [^`]+)`", said)[0]
    learned = tmp_path / "rows.safetensors"
    given = {"DATA": path, "MODEL": learned}
    done(*(given.get(word, word) for word in advice.split()), "--max-epochs", "1", "--seed", "0")
    done("denoise", path, "-o", out, "-m", learned)
    assert np.load(out).shape == rows.shape


def test_white_can_be_told(clean: np.ndarray, tmp_path: Path, model: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 300, clean.shape)
    Image.fromarray((clean * 16.0 + noise).clip(0, 4095).astype(np.uint16)).save(tmp_path / "a.png")
    out = tmp_path / "b.png"
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        said = run("denoise", tmp_path / "a.png", "-m", model, "-o", out)
    assert said.status == 0 and "a guess" in said.err and "give white" in said.err
    said = run(
        "denoise", tmp_path / "a.png", "-m", model, "-o", out, "--overwrite", "--white", 4095
    )
    assert said.status == 0 and not said.err
    level = float(re.findall(r"noise ([\d.]+) of 255", said.out)[0])
    assert level == pytest.approx(300 / 16, rel=0.15)


def test_long_names_in_a_folder_do_not_stop_the_others(tmp_path: Path, model: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    names = ["a.png", "b" * 240 + ".png", "ä" * 120 + ".png", "c" * 250 + ".ppm", "d.png"]
    for name in names:
        Image.fromarray(np.full((20, 20), 9, np.uint8)).save(scans / name)
    run("denoise", scans, "-m", model, "-o", tmp_path / "out")
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"a.png", "d.png"} <= made
    assert not any(name.endswith(".partial") for name in made)


def test_rows_are_cleaned_by_a_denoising_autoencoder(tmp_path: Path) -> None:
    path, out = tmp_path / "dae.safetensors", tmp_path / "clean.npy"
    words = ("--max-epochs", "1", "--latent-dim", "8", "--seed", "0")
    done("fit", "digits", "--model", "denoising-autoencoder", "-o", path, *words)
    done("denoise", "digits", "-m", path, "-o", out)
    done("reconstruct", path, "digits", "-o", tmp_path / "same.npy")
    np.testing.assert_array_equal(np.load(out), np.load(tmp_path / "same.npy"))
    assert "photographs only" in refused("denoise", "digits", "-m", path, "-o", out, "--seed", "1")


def test_info_tells_of_it(model: Path) -> None:
    assert "Denoiser" in done("info", model)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--resize", "32"), "any size"),
        (("--noise-level", "50,5"), "noise_level"),
        (("--noisy-targets", "--noise-level", "5,50"), "one number"),
    ],
)
def test_bad_parameters_get_one_sentence(
    words: tuple[str, ...], said: str, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "d.safetensors"
    assert said in refused("fit", folder, "--model", "denoiser", "-o", out, *words)
    assert not out.exists()
