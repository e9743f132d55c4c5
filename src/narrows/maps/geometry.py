"""The geometry that a decoder gives its codes: lengths, shortest paths, magnification.

A step dz in the code moves the reconstruction by g(z + dz) − g(z) ≈ J dz, whose length is
√(dzᵀ JᵀJ dz): JᵀJ is a Riemannian metric on the codes (Arvanitidis, Hansen and Hauberg, "Latent
space oddity", arXiv:1710.11379). Rows are in scaled units, those in which the model was trained,
and g is the decoder that ``inverse_transform`` uses, in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree
from torch import Tensor

from narrows.estimators.base import Estimator
from narrows.estimators.parameters import check_value
from narrows.estimators.reconstruction import checked_answer
from narrows.exceptions import InputError, ParameterError
from narrows.maps.map_quality import flat_rows
from narrows.parts.likelihoods.discrete import Categorical
from narrows.parts.networks.linear_path import BoundedHead
from narrows.training.batches import inference_batch

Array = NDArray[np.float64]
GRID = 48  # points along each side of the grid on which a path starts
GAP_NEIGHBOR = 5  # the neighbour by whose distance codes are dense or not
GAP_WIDTH = 1.5  # times that distance: what is farther from all codes is a gap
GAP_COST = 10.0  # of a path that lies twice as far away, as a multiple of its energy
MAX_GRID_NUMBERS = 2**25  # decoded numbers of all nodes together: 128 MiB, and some copies
MEASURED_PIECES = 256  # chords at least in a length: its error falls with their square
# of a number of a code: ∛ε, where truncation and float64's rounding are alike, about 1e-10
DIFFERENCE_STEP = 6e-6
# steps to neighbours on the grid; with the opposite ones 16, so that directions are 27° apart
STEPS = ((1, 0), (0, 1), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))


class Geodesic(NamedTuple):
    """A shortest path: its codes (n_points, k), float64, and its length in scaled units."""

    codes: Array
    length: float


def geodesic(
    model: Estimator,
    a: ArrayLike,
    b: ArrayLike,
    *,
    codes: ArrayLike | None = None,
    avoid_gaps: bool = False,
    n_points: int = 33,
) -> Geodesic:
    """The shortest path between two codes, by the length of what it decodes to.

        min over z_1, ..., z_{m−1} of m Σ_i ‖g(z_{i+1}) − g(z_i)‖²,  z_0 = a, z_m = b

    At the minimum of this discrete path energy all steps are equally long and their sum is the
    length. L-BFGS starts from the straight line; where codes have two numbers also from the
    shortest path on a grid (Dijkstra), and the shorter result is taken, so that the path goes round
    what is dear to cross. It is a local minimum: on a code of more numbers it is one near the
    straight line. The decoder alone decides: where it is smooth across a gap in the data, the path
    may cross the gap. With ``avoid_gaps`` it keeps to the codes: each point of the path is also
    charged (GAP_COST / m) (d / r − 1)² where its distance d from the nearest of ``codes`` is more
    than r, one and a half times the median distance of a code from its fifth neighbour.

    Source: Shao, Kumar and Fletcher, "The Riemannian geometry of deep generative models",
    arXiv:1711.08014; Chen et al., "Metrics for deep generative models", arXiv:1711.01204.

    Parameters
    ----------
    model : fitted estimator with ``inverse_transform``
        Of a class-conditional model the decoder is that of class 0.
    a, b : array of shape (k,)
        Two codes.
    codes : array of shape (n, k), optional
        The codes whose range the grid covers, such as ``model.transform(X)``. Without them it
        reaches beyond a and b by their distance, on each side.
    avoid_gaps : bool
        Whether the path keeps to ``codes``, which it then needs.
    n_points : int, at least 3
        Codes along the path, with both ends.

    Returns
    -------
    Geodesic
        A tuple (codes, length): the path, (n_points, k), to be decoded by ``inverse_transform``,
        and its ``path_length``.

    Raises
    ------
    InputError
        a, b or codes are of another width than the model's, or hold NaN or no numbers, or codes are
        too few for ``avoid_gaps``.
    ParameterError
        ``avoid_gaps`` without codes; the model is no estimator with plain codes that a decoder maps
        smoothly to rows, or n_points is too small.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows import Autoencoder, maps
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> model = Autoencoder(latent_dim=2, max_epochs=2, random_state=0).fit(X)
    >>> a, b = model.transform(X[:2])
    >>> path = maps.geodesic(model, a, b)
    >>> path.codes.shape, path.length <= maps.path_length(model, [a, b]) + 1e-6
    ((33, 2), True)
    """
    check_value("n_points", n_points, kind=int, low=3)
    g = _Decoder(model, flat=True)
    ends = np.concatenate([g.check(np.reshape(end, (1, -1)), n) for end, n in ((a, "a"), (b, "b"))])
    reach = np.abs(ends[0] - ends[1]).max()
    shown = np.concatenate([ends - reach, ends + reach]) if codes is None else codes
    shown = g.check(shown, "codes")
    if avoid_gaps and codes is None:
        raise ParameterError("avoid_gaps=True needs codes, such as codes=model.transform(X).")
    gaps = Gaps(np.concatenate([shown, ends])) if avoid_gaps else None
    low, high = np.minimum(shown.min(0), ends.min(0)), np.maximum(shown.max(0), ends.max(0))
    starts = [np.linspace(ends[0], ends[1], n_points)]
    if g.width == 2 and reach > 0:
        starts.append(_path_on_grid(g, ends, low, high, n_points, gaps))
    found = [_shortened(g, start, gaps) for start in starts]
    path = min(found, key=lambda one: _length(g, one) * (1 + _gap_cost(one, gaps)))
    return Geodesic(path, _length(g, path))


def path_length(model: Estimator, codes: ArrayLike) -> float:
    """The length of the decoded path through codes, along straight lines from one to the next.

        Σ ‖g(z_{i+1}) − g(z_i)‖, with every line cut into equal pieces, at least 256 in all

    Parameters
    ----------
    model : fitted estimator with ``inverse_transform``
    codes : array of shape (n, k), at least 2 rows
        The path.

    Returns
    -------
    float
        In scaled units: the root of a sum of squares over the elements of a row.

    Raises
    ------
    InputError
        codes have another width than the model's, are fewer than 2, or hold NaN or no numbers.
    ParameterError
        The model is no estimator with codes that a decoder maps smoothly to rows.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows import Autoencoder, maps
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> model = Autoencoder(latent_dim=2, max_epochs=2, random_state=0).fit(X)
    >>> Z = model.transform(X[:2])
    >>> maps.path_length(model, Z) > 0, maps.path_length(model, Z[[0, 0]])
    (True, 0.0)
    """
    g = _Decoder(model, flat=False)
    path = g.check(codes, "codes")
    if len(path) < 2:
        raise InputError("A path has at least 2 codes; got 1.")
    return _length(g, path)


def magnification(model: Estimator, Z: ArrayLike) -> Array:
    """By how much the decoder stretches the map at each code: √det JᵀJ.

    For two numbers in a code it is the area in scaled units that a unit of area on the map decodes
    to. J, (d, k), is the Jacobian of g by central differences in float64, right to about nine
    digits, and the root is the product of its singular values. Where it is large, rows that are
    close on the map differ much.

    Source: Bishop, Svensén and Williams, "Magnification factors for the SOM and GTM algorithms",
    WSOM 1997.

    Parameters
    ----------
    model : fitted estimator with ``inverse_transform``
        Of a class-conditional model the decoder is that of class 0.
    Z : array of shape (n, k)
        Codes.

    Returns
    -------
    array of shape (n,), float64
        0 where the decoder is flat in some direction, and everywhere if k is larger than d.

    Raises
    ------
    InputError
        Z has another width than the model's codes, or holds NaN or no numbers.
    ParameterError
        The model is no estimator with codes that a decoder maps smoothly to rows, or they lie on a
        curved space.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows import Autoencoder, maps
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> model = Autoencoder(latent_dim=2, max_epochs=2, random_state=0).fit(X)
    >>> maps.magnification(model, model.transform(X)).shape
    (60,)
    """
    g = _Decoder(model, flat=True)
    found = []
    for z in g.batches(g.check(Z, "Z")):
        J = g.jacobian(z)
        stretches = torch.linalg.svdvals(J)
        area = stretches.prod(1) * (J.shape[1] >= J.shape[2])
        found.append(checked_answer(area).cpu().numpy())
    return np.concatenate(found)


def check_estimator(model: object) -> None:
    """Raise ParameterError for anything but an estimator of rows of one shape."""
    if not isinstance(model, Estimator):
        raise ParameterError(
            f"model is a {type(model).__name__}; give a fitted estimator of narrows that has "
            "inverse_transform, such as Autoencoder."
        )


class Gaps:
    """How far codes are from the data: 0 where data are, more in a gap.

    For a code at the distance d from the nearest code of the data it is (d / r − 1)² from d = r on,
    where r is ``GAP_WIDTH`` times the median distance of those codes from their fifth neighbour.

    Raises `InputError` for fewer than 6 codes.
    """

    def __init__(self, codes: Array) -> None:
        if len(codes) <= GAP_NEIGHBOR:
            raise InputError(f"{len(codes)} codes are too few to know where gaps are; give more.")
        self.codes, self.tree = codes, KDTree(codes)
        far = self.tree.query(codes, GAP_NEIGHBOR + 1)[0][:, -1]
        apart = far[far > 0]  # codes that are equal say nothing
        self.radius = GAP_WIDTH * float(np.median(apart)) if len(apart) else np.inf

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """The measure at codes (n, k), and its gradient."""
        distance, nearest = self.tree.query(z)
        excess = np.maximum(distance / self.radius - 1, 0)
        away = (z - self.codes[nearest]) / np.maximum(distance, 1e-300)[:, None]
        return excess**2, (2 * excess / self.radius)[:, None] * away


def _gap_cost(path: Array, gaps: Gaps | None) -> float:
    return 0.0 if gaps is None else GAP_COST * float(gaps(path)[0].mean())


class MetricGrid(NamedTuple):
    """What the decoder does on a grid of a map of two numbers, for a page that shows it.

    ``lengths`` (8, GRID, GRID) is how far the reconstruction moves from each node along each of
    ``STEPS``, infinite where a step leaves the grid; ``stretch`` (GRID, GRID) is √det JᵀJ by
    differences between nodes, ``gaps`` (GRID, GRID) the measure of `Gaps`. The first axis of the
    grid is that of the code's first number, from ``low`` to ``high``, (2,).
    """

    low: Array
    high: Array
    lengths: NDArray[np.float32]
    stretch: NDArray[np.float32]
    gaps: NDArray[np.float32]


def metric_grid(model: Estimator, codes: ArrayLike) -> MetricGrid:
    """The decoder's metric on a grid over the range of the codes (n, 2).

    Raises `ParameterError` for a model whose codes are not two plain numbers, or not decoded to
    rows smoothly, see `geodesic`, and for rows so large that the grid's would not fit in memory.
    """
    g = _Decoder(model, flat=True)
    if g.width != 2:
        raise ParameterError(f"A grid needs codes of two numbers; those of this have {g.width}.")
    n_features = model.state_.spec.layout.n_features
    if n_features * GRID**2 > MAX_GRID_NUMBERS:
        raise ParameterError(f"Rows of {n_features:,} numbers are too large for a grid of them.")
    shown = g.check(codes, "codes")
    low, high = shown.min(0), shown.max(0)
    high = np.where(high > low, high, low + 1e-9)
    nodes, decoded = _decoded_nodes(g, low, high)
    lengths = np.full((len(STEPS), GRID * GRID), np.inf, np.float32)
    for kept, step in zip(lengths, STEPS, strict=True):
        begin, _, length = _edges(nodes, decoded, *step)
        kept[begin] = length
    a, b = (np.gradient(decoded, (high[i] - low[i]) / (GRID - 1), axis=i) for i in range(2))
    square = (a * a).sum(-1) * (b * b).sum(-1) - (a * b).sum(-1) ** 2
    stretch = np.sqrt(np.maximum(square, 0)).astype(np.float32)
    empty = np.zeros(GRID * GRID)
    if len(shown) > GAP_NEIGHBOR:
        empty = Gaps(shown)(_nodes(low, high))[0]
    gaps = empty.reshape(GRID, GRID).astype(np.float32)
    return MetricGrid(low, high, lengths.reshape(-1, GRID, GRID), stretch, gaps)


class _Decoder:
    """g of a fitted estimator in float64: codes (B, k) → rows (B, d), flat and in scaled units.

    ``flat``: refuse codes on a sphere or in a ball, which have fewer degrees of freedom than
    numbers, or end at a border.
    """

    def __init__(self, model: Estimator, *, flat: bool) -> None:
        check_estimator(model)
        state, name = model.state_, type(model).__name__
        if isinstance(state.model.D, Categorical) or state.model.D.classes:
            raise ParameterError(
                f"distance={state.config.distance!r} decodes to classes, which jump from one to "
                f"the next and have no lengths; fit {name} with another distance."
            )
        if flat and state.model.q.maps_codes:
            raise ParameterError(
                f"The codes of {name} lie on a curved space; this needs plain ones: give "
                "another model (interpolate follows that space)."
            )
        module = copy.deepcopy(state.model).double().eval()
        for part in module.modules():
            if isinstance(part, BoundedHead):
                part.leak = 0.0  # the true gradient
        self.model = model._with_state(replace(state, model=module.requires_grad_(False)))
        self.width, self.device = model._code_width(), model._device
        self.batch = max(1, inference_batch(state.config.shape) // self.width)

    def __call__(self, z: Tensor) -> Tensor:
        rows: Tensor = self.model._decode(z)
        return rows.flatten(1).double()

    @torch.no_grad()
    def jacobian(self, z: Tensor) -> Tensor:
        """J at each code, (B, d, k), by central differences: any network of the user's has them."""
        step = DIFFERENCE_STEP * z.abs().clamp(min=1.0)
        moves = torch.diag_embed(step)  # (B, k, k): a row moves one number
        ahead, behind = (self((z[:, None] + s * moves).flatten(0, 1)) for s in (1.0, -1.0))
        slopes: Tensor = (ahead - behind).unflatten(0, (len(z), self.width))
        return (slopes / (2 * step[..., None])).transpose(1, 2)

    @torch.no_grad()
    def rows(self, codes: Array) -> Iterator[Array]:
        """The decoded codes, batch by batch."""
        for z in self.batches(codes):
            yield checked_answer(self(z)).cpu().numpy()

    def batches(self, codes: Array) -> Iterator[Tensor]:
        """The codes as tensors."""
        for start in range(0, len(codes), self.batch):
            yield torch.from_numpy(codes[start : start + self.batch]).to(self.device)

    def check(self, codes: ArrayLike, name: str) -> Array:
        """Codes (n, k) in float64; raises InputError."""
        found = flat_rows(codes, name)
        if found.shape[1] != self.width:
            raise InputError(
                f"{name} has {found.shape[1]} numbers in a code; those of this model have "
                f"{self.width}."
            )
        return found.astype(np.float64)


def _length(g: _Decoder, path: Array) -> float:
    """The length of a path, see ``path_length``."""
    pieces = -(-MEASURED_PIECES // (len(path) - 1))
    places = np.arange((len(path) - 1) * pieces + 1) / pieces
    total, last = 0.0, None
    for rows in g.rows(_along(path, np.arange(len(path)), places)):
        joined = rows if last is None else np.concatenate([last, rows])
        total, last = total + float(_norms(np.diff(joined, axis=0)).sum()), rows[-1:]
    return total


def _norms(rows: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.sqrt((rows * rows).sum(-1)))


def _along(path: Array, at: NDArray[Any], places: NDArray[Any]) -> Array:
    """Codes on the lines between those of a path that stand ``at`` rising places."""
    return np.stack([np.interp(places, at, column) for column in path.T], 1)


def _shortened(g: _Decoder, start: Array, gaps: Gaps | None) -> Array:
    """The path of the least energy near ``start``, its ends kept; what gaps cost is added."""
    m = len(start) - 1
    # inner codes = start + basis · numbers, in which the energy of a flat map has equal curvature
    # in all directions: L-BFGS then takes tens of steps in place of hundreds
    laplacian = 2 * np.eye(m - 1) - np.eye(m - 1, k=1) - np.eye(m - 1, k=-1)
    basis = np.linalg.inv(np.linalg.cholesky(laplacian)).T
    zeros, scale = np.zeros((m - 1) * start.shape[1]), 1.0

    def moved(numbers: Array) -> Array:
        path = start.copy()
        path[1:-1] += basis @ numbers.reshape(m - 1, -1)
        return path

    def energy(numbers: Array) -> tuple[float, Array]:
        path = moved(numbers)
        z = torch.from_numpy(path).to(g.device).requires_grad_()
        total = m * g(z).diff(dim=0).square().sum() / scale
        (slope,) = torch.autograd.grad(total, z)
        value, slopes = total.item(), slope.cpu().numpy()
        if gaps is not None:
            found, uphill = gaps(path)
            value += GAP_COST / m * float(found.sum())
            slopes = slopes + GAP_COST / m * uphill
        return value, (basis.T @ slopes[1:-1]).ravel()

    with torch.no_grad():
        rows = g(torch.from_numpy(start).to(g.device))
    scale = m * float(rows.diff(dim=0).square().sum())
    if not np.isfinite(scale) or scale == 0:  # nothing moves: a map of one point, or a is b
        return start
    options = {"maxiter": 1000, "maxcor": 20, "ftol": 1e-11, "gtol": 1e-7}
    return moved(minimize(energy, zeros, jac=True, method="L-BFGS-B", options=options).x)


def _path_on_grid(
    g: _Decoder, ends: Array, low: Array, high: Array, n_points: int, gaps: Gaps | None
) -> Array:
    """The shortest path on a grid from low to high, with points evenly spaced on it."""
    high = np.where(high > low, high, low + 1e-9)
    numbers, decoded = _decoded_nodes(g, low, high)
    nodes = _nodes(low, high)
    edges = [_edges(numbers, decoded, *step) for step in STEPS]
    begin, end, cost = (np.concatenate(part) for part in zip(*edges, strict=True))
    cost = np.maximum(cost, np.finfo(np.float32).tiny)  # scipy takes 0 for no edge
    if gaps is not None:
        dear = GAP_COST * gaps(nodes)[0]
        cost = cost * (1 + (dear[begin] + dear[end]) / 2)
    graph = coo_array((cost, (begin, end)), shape=(len(nodes), len(nodes))).tocsr()
    first, last = (int(np.abs((nodes - e) / (high - low)).sum(1).argmin()) for e in ends)
    before = dijkstra(graph, directed=False, indices=first, return_predecessors=True)[1]
    way = [last]
    while way[-1] != first:
        way.append(int(before[way[-1]]))
    path = np.concatenate([ends[:1], nodes[way[::-1]][1:-1], ends[1:]])
    lengths = _norms(np.diff(np.concatenate(list(g.rows(path))), axis=0))
    at = np.concatenate([[0.0], lengths.cumsum()])
    return _along(path, at, np.linspace(0, at[-1], n_points))


def _nodes(low: Array, high: Array) -> Array:
    """The codes of a grid's nodes, (GRID², 2)."""
    axes = [np.linspace(low[i], high[i], GRID) for i in range(2)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)


def _decoded_nodes(
    g: _Decoder, low: Array, high: Array
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Numbers of a grid's nodes, (GRID, GRID), and what they decode to, (GRID, GRID, d)."""
    decoded = np.concatenate([rows.astype(np.float32) for rows in g.rows(_nodes(low, high))])
    return np.arange(GRID * GRID).reshape(GRID, GRID), decoded.reshape(GRID, GRID, -1)


def _edges(
    numbers: NDArray[Any], decoded: NDArray[Any], dx: int, dy: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """(begin, end, length) of the edges from every node of a grid to the one a step away."""
    near = slice(0, GRID - dx), slice(max(0, -dy), GRID - max(0, dy))
    far = slice(dx, GRID), slice(max(0, dy), GRID - max(0, -dy))
    return numbers[near].ravel(), numbers[far].ravel(), _norms(decoded[far] - decoded[near]).ravel()
