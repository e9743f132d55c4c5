"""Lengths, shortest paths and magnification on charts whose geometry is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from sklearn.datasets import load_digits
from torch import Tensor, nn

import narrows
from narrows import Autoencoder, InputError, ParameterError, maps
from narrows.maps import geometry
from narrows.maps.geometry import _Decoder
from narrows.parts.networks.linear_path import BoundedHead


class Chart(nn.Module):
    """A g without weights: (B, k) → (B, d)."""

    def __init__(self, function: Callable[..., list[Tensor]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return torch.stack(self.function(*z.unbind(1)), 1)


def charted(function: Callable[..., list[Tensor]], k: int = 2, d: int = 3) -> Autoencoder:
    """A fitted autoencoder whose decoder is replaced by a chart."""
    X = np.random.default_rng(0).normal(size=(20, max(d, k + 1)))
    fitted = Autoencoder(latent_dim=k, max_epochs=1, random_state=0).fit(X)
    model = fitted.state_.model.only("f", "q", "D")
    model.g = Chart(function)
    return fitted._with_state(replace(fitted.state_, model=model))


def sphere(u: Tensor, v: Tensor) -> list[Tensor]:
    """Longitude and latitude on a sphere of radius 2."""
    return [2 * v.cos() * u.cos(), 2 * v.cos() * u.sin(), 2 * v.sin()]


def roll(t: Tensor, h: Tensor) -> list[Tensor]:
    """A Swiss roll: the spiral r = t, 3 h high."""
    return [t * t.cos(), t * t.sin(), 3 * h]


def spiral(t: Any) -> Any:
    """The length of r = t up to t: ½ (t √(1 + t²) + arsinh t)."""
    return (t * np.sqrt(1 + t * t) + np.arcsinh(t)) / 2


def hill(u: Tensor, v: Tensor) -> list[Tensor]:
    """A plane with a hill of height 5 at 0, as steep as the border of a hole."""
    return [u, v, 5 * torch.exp(-(u * u + v * v) / 0.1)]


def test_paths_on_a_sphere_are_great_circles() -> None:
    model = charted(sphere)
    for a, b in [([0.0, 0.0], [1.5, 0.0]), ([-1.0, 0.8], [1.2, 0.9]), ([0.0, -1.0], [0.7, 1.0])]:
        path = maps.geodesic(model, a, b)
        ends = np.array([np.stack(sphere(*torch.tensor(end))) for end in (a, b)]) / 2
        angle = np.arccos(ends[0] @ ends[1])
        assert path.length == pytest.approx(2 * angle, rel=5e-4)
        finer = maps.geodesic(model, a, b, n_points=65).length
        assert finer == pytest.approx(2 * angle, rel=1e-4)
        points = np.stack(sphere(*torch.from_numpy(path.codes.T)), 1) / 2
        normal = np.cross(*ends)
        assert np.abs(points @ normal).max() < 1e-2  # all points lie in the plane of the circle
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        assert steps.max() / steps.min() < 1.01  # constant speed
    assert (
        maps.path_length(model, [[-1.0, 0.8], [1.2, 0.9]])
        > 1.1 * maps.geodesic(model, [-1.0, 0.8], [1.2, 0.9]).length
    )


def test_paths_on_a_cylinder_are_helices() -> None:
    model = charted(lambda u, v: [u.cos(), u.sin(), v])
    path = maps.geodesic(model, [0.0, 0.0], [3.0, 2.0])
    assert path.length == pytest.approx(13**0.5, rel=1e-4)
    np.testing.assert_allclose(path.codes, np.linspace([0, 0], [3, 2], 33), atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_paths_on_a_roll_have_the_length_of_the_unrolled_line(seed: int) -> None:
    low, high = np.array([1.5, 0.0]), np.array([9.0, 7.0])
    a, b = np.random.default_rng(seed).uniform(low, high, size=(2, 2))
    flat = [np.array([spiral(t), 3 * h]) for t, h in (a, b)]
    path = maps.geodesic(charted(roll), a, b, codes=[low, high])
    assert path.length == pytest.approx(np.linalg.norm(flat[0] - flat[1]), rel=1e-3)
    assert (path.codes[0] == a).all()
    assert (path.codes[-1] == b).all()


def test_a_path_goes_round_a_hill_even_if_both_ends_face_it() -> None:
    model = charted(hill)
    a, b = [-1.0, 0.0], [1.0, 0.0]  # the straight line is a saddle: L-BFGS alone stays on it
    path = maps.geodesic(model, a, b, codes=[[-1.5, -1.5], [1.5, 1.5]])
    assert np.linalg.norm(path.codes, axis=1).min() > 0.5
    assert path.length < 2.5 < 10 < maps.path_length(model, [a, b])
    assert maps.geodesic(model, a, b).length == pytest.approx(path.length, rel=1e-3)


def test_a_path_round_a_hole_is_a_string_round_a_disk() -> None:
    def hole(u: Tensor, v: Tensor) -> list[Tensor]:
        return [u, v, 50 * torch.sigmoid((1 - (u * u + v * v).sqrt()) / 0.02)]

    path = maps.geodesic(charted(hole), [-1.5, 0.1], [1.5, 0.1], codes=[[-2, -2], [2, 2]])
    d = np.hypot(1.5, 0.1)  # two tangents of the unit circle, and the arc between them
    taut = 2 * np.sqrt(d * d - 1) + np.pi - 2 * np.arctan2(0.1, 1.5) - 2 * np.arccos(1 / d)
    assert taut < path.length < 1.2 * taut  # the wall has a width


def test_a_path_that_avoids_gaps_goes_round_a_hole_in_the_data() -> None:
    plane = charted(lambda u, v: [u, v, 0 * u])  # the decoder does not know of the hole
    Z = np.random.default_rng(0).uniform(-2, 2, size=(6000, 2))
    Z = Z[np.linalg.norm(Z, axis=1) > 1]
    a, b = [-1.5, 0.1], [1.5, 0.1]
    straight = maps.geodesic(plane, a, b, codes=Z)
    assert straight.length == pytest.approx(3, rel=1e-6)
    path = maps.geodesic(plane, a, b, codes=Z, avoid_gaps=True)
    d = np.hypot(1.5, 0.1)
    taut = 2 * np.sqrt(d * d - 1) + np.pi - 2 * np.arctan2(0.1, 1.5) - 2 * np.arccos(1 / d)
    assert path.length == pytest.approx(taut, rel=0.03)  # it may cut into the hole by about r
    assert np.linalg.norm(path.codes, axis=1).min() > 0.85
    dense = np.random.default_rng(1).uniform(-2, 2, size=(6000, 2))
    assert maps.geodesic(plane, a, b, codes=dense, avoid_gaps=True).length < 3.001


@pytest.mark.parametrize("codes", [None, [[0.0, 0.0], [1.0, 1.0]]])
def test_gaps_need_codes(codes: Any) -> None:
    with pytest.raises((ParameterError, InputError), match=r"codes"):
        maps.geodesic(charted(sphere), [0.0, 0.0], [1.0, 1.0], codes=codes, avoid_gaps=True)


def test_a_code_of_one_number_has_one_path_walked_at_constant_speed() -> None:
    model = charted(lambda t: [t, t**2], k=1, d=2)
    path = maps.geodesic(model, [0.0], [2.0])
    length = quad(lambda t: np.sqrt(1 + 4 * t * t), 0, 2)[0]
    assert path.length == pytest.approx(length, rel=1e-4)
    steps = np.linalg.norm(np.diff(np.hstack([path.codes, path.codes**2]), axis=0), axis=1)
    assert steps.max() / steps.min() < 1.01


def test_paths_between_codes_of_many_numbers_are_found_too() -> None:
    B = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 9)))
    model = charted(lambda *z: list((torch.stack(z, 1).sinh() @ B.to(z[0])).unbind(1)), 6, 9)
    a, b = np.random.default_rng(1).uniform(-2, 2, size=(2, 6))
    true = np.linalg.norm((np.sinh(a) - np.sinh(b)) @ B.numpy())  # sinh z is a flat chart
    assert maps.geodesic(model, a, b).length == pytest.approx(true, rel=1e-3)
    assert maps.path_length(model, [a, b]) > 1.003 * true


def test_a_path_to_itself_and_one_through_a_point_have_no_length() -> None:
    path = maps.geodesic(charted(sphere), [0.3, 0.2], [0.3, 0.2], n_points=5)
    assert path.length == 0
    assert (path.codes == [0.3, 0.2]).all()
    assert path.codes.shape == (5, 2)
    point = charted(lambda u, v: [0 * u, 0 * u, 0 * v])
    assert maps.geodesic(point, [0.0, 0.0], [1.0, 1.0]).length == 0


def test_the_length_of_a_line_is_that_of_its_curve() -> None:
    model = charted(roll)
    line = [[2.0, 0.0], [8.0, 0.0]]
    assert maps.path_length(model, line) == pytest.approx(spiral(8) - spiral(2), rel=1e-4)
    cut = np.linspace(*line, 400)
    assert maps.path_length(model, cut) == pytest.approx(spiral(8) - spiral(2), rel=1e-4)


def test_lengths_do_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = charted(roll), [[2.0, 0.0], [8.0, 0.0], [8.0, 5.0]]
    expected = maps.path_length(model, path), maps.magnification(model, path)
    monkeypatch.setattr(geometry, "inference_batch", lambda shape: 4)
    assert maps.path_length(model, path) == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(maps.magnification(model, path), expected[1], rtol=1e-12)


def test_the_magnification_of_charts_is_their_closed_form() -> None:
    Z = np.random.default_rng(0).uniform(0.1, 1.4, size=(700, 2))
    polar = charted(lambda r, t: [r * t.cos(), r * t.sin(), 0 * r])
    np.testing.assert_allclose(maps.magnification(polar, Z), Z[:, 0], rtol=1e-8)
    np.testing.assert_allclose(
        maps.magnification(charted(sphere), Z), 4 * np.cos(Z[:, 1]), rtol=1e-8
    )
    stretched = np.sqrt(1 + Z[:, 0] ** 2) * 3
    np.testing.assert_allclose(maps.magnification(charted(roll), Z), stretched, rtol=1e-8)
    flat = charted(lambda u, v: [u + v, u + v, u + v])
    np.testing.assert_allclose(maps.magnification(flat, Z), 0, atol=1e-8)
    wide = charted(lambda a, b, c: [a, b], k=3, d=2)
    assert (maps.magnification(wide, np.ones((4, 3))) == 0).all()


def test_the_magnification_of_a_linear_decoder_is_its_determinant() -> None:
    B = np.random.default_rng(0).normal(size=(5, 3))
    columns = torch.from_numpy(B)
    model = charted(lambda *z: list((torch.stack(z, 1) @ columns.T.to(z[0])).unbind(1)), 3, 5)
    expected = np.sqrt(np.linalg.det(B.T @ B))
    found = maps.magnification(model, np.random.default_rng(1).normal(size=(10, 3)))
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.fixture(scope="module")
def images() -> Autoencoder:
    X = load_digits().images[:200].astype(np.uint8)
    return Autoencoder(latent_dim=2, architecture="conv", max_epochs=2, random_state=0).fit(X)


def test_a_jacobian_is_autograds_also_where_rows_are_bounded(
    images: Autoencoder,
) -> None:
    assert any(isinstance(part, BoundedHead) for part in images.state_.model.modules())
    g, rng = _Decoder(images, flat=True), np.random.default_rng(0)
    z = torch.from_numpy(3 * rng.normal(size=(9, 2))).requires_grad_()
    rows = g(z)
    assert any((rows == bound).any() for bound in rows.aminmax())  # pixels at their bounds
    target = torch.from_numpy(rng.normal(size=rows.shape))
    (slope,) = torch.autograd.grad((rows * target).sum(), z)  # as in the path energy
    expected = torch.einsum("bdk,bd->bk", g.jacobian(z.detach()), target)
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-6)


def test_it_is_the_decoder_of_inverse_transform_and_the_model_stays(images: Autoencoder) -> None:
    Z = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    before = images.inverse_transform(Z)
    scaled = np.concatenate(list(_Decoder(images, flat=True).rows(Z.astype(np.float64))))
    back = images.scaling_.undo(torch.from_numpy(scaled).reshape(7, 1, 8, 8)).numpy()
    assert np.abs(back.reshape(7, 8, 8).round() - before).max() <= 1  # rounding of float32
    path = maps.geodesic(images, Z[0], Z[1])
    assert path.length <= maps.path_length(images, Z[:2]) * (1 + 1e-6)
    assert (images.inverse_transform(Z) == before).all()
    assert all(p.dtype == torch.float32 for p in images.state_.model.parameters())
    assert {m.leak for m in images.state_.model.modules() if isinstance(m, BoundedHead)} == {0.05}
    assert maps.geodesic(images, Z[0], Z[1]).length == path.length


@pytest.mark.parametrize("name", ["VariationalAutoencoder", "VQVAE", "LadderVAE", "ConditionalVAE"])
def test_other_models_have_a_geometry_too(name: str) -> None:
    X = np.random.default_rng(0).normal(size=(60, 5))
    model = getattr(narrows, name)(latent_dim=2, max_epochs=1, random_state=0)
    y = (np.arange(60) % 2,) if name == "ConditionalVAE" else ()
    Z = model.fit(X, *y).transform(X[:6])
    assert maps.magnification(model, Z).shape == (6,)
    assert maps.geodesic(model, Z[0], Z[1]).length <= maps.path_length(model, Z[:2]) + 1e-6


def test_models_that_cannot_be_measured_are_refused_by_name() -> None:
    X = np.random.default_rng(0).normal(size=(60, 5))
    curved = narrows.SphericalVAE(latent_dim=2, max_epochs=5, random_state=0).fit(X)
    Z = curved.transform(X[:3])
    for measure in (lambda: maps.geodesic(curved, *Z[:2]), lambda: maps.magnification(curved, Z)):
        with pytest.raises(ParameterError, match="codes of SphericalVAE lie on a curved space"):
            measure()
    assert maps.path_length(curved, Z) > 0
    ball = narrows.PoincareVAE(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    assert maps.path_length(ball, ball.transform(X[:3])) > 0
    classes = Autoencoder(latent_dim=2, max_epochs=1, distance="categorical")
    classes.fit(np.random.default_rng(0).integers(0, 4, size=(60, 5)))
    with pytest.raises(ParameterError, match="distance='categorical' decodes to classes"):
        maps.magnification(classes, np.zeros((1, 2)))
    with pytest.raises(ParameterError, match="model is a str; give a fitted estimator"):
        maps.path_length("model.safetensors", Z)
    with pytest.raises(ParameterError, match="model is a Codec"):
        maps.magnification(narrows.Codec(), Z)
    with pytest.raises(ValueError, match="not fitted yet"):
        maps.path_length(Autoencoder(), Z)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: maps.geodesic(m, [0, 0, 0], [1, 1]), "a has 3 numbers in a code; .* have 2"),
        (lambda m: maps.geodesic(m, [0, 0], [1]), "b has 1 numbers? in a code"),
        (lambda m: maps.geodesic(m, [0, np.nan], [1, 1]), "a contains NaN"),
        (lambda m: maps.geodesic(m, [0, 0], [1, 1], codes=[[1, 2, 3]]), "codes has 3 numbers"),
        (lambda m: maps.path_length(m, [[0, 0]]), "at least 2 codes"),
        (lambda m: maps.path_length(m, [0, 0]), "one row for each sample"),
        (lambda m: maps.magnification(m, np.zeros((0, 2))), "holds no numbers"),
        (lambda m: maps.magnification(m, [["a", "b"]]), "real numbers"),
    ],
)
def test_bad_codes_get_a_sentence(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call(charted(sphere))


def test_a_path_has_three_points_at_least() -> None:
    with pytest.raises(ParameterError, match="n_points must be"):
        maps.geodesic(charted(sphere), [0, 0], [1, 1], n_points=2)
