"""From checked rows to a model ready to be trained: the split, the scaling, every "auto"."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from narrows._types import Sizes
from narrows.estimators.build import (
    Parts,
    ResolvedConfig,
    build_model,
    channels_last,
    copy_networks,
    scaled_bounds,
    set_bounds,
    set_corruption_units,
    try_networks,
    widen_bounds,
)
from narrows.estimators.fitted_state import EstimatorState, FittedState, History, pick_device
from narrows.estimators.parameters import Parameters, as_ints, lasting, refuse_changes, seed_of
from narrows.estimators.pca import MAX_COMPONENTS, PCA, fit_pca, start_at_pca
from narrows.estimators.reconstruction import MAX_SCALED, PCABeside, mean_error
from narrows.estimators.validation import CheckedRows, Given, InputSpec
from narrows.exceptions import InputError, ParameterError
from narrows.io.photographs import Images
from narrows.parts.likelihoods.base import Likelihood, Range
from narrows.parts.likelihoods.continuous import LIKELIHOODS
from narrows.parts.model import Model
from narrows.parts.networks.architectures import default_widths, dense_widths
from narrows.parts.networks.linear_path import path_fits
from narrows.parts.objective import part_name
from narrows.training.batches import Rows, Scaling, as_tensor, fit_scaling, shared_axes
from narrows.training.checkpoint import Marks, Saved
from narrows.training.patches import Patches
from narrows.training.process_group import Group
from narrows.training.statistics import Statistics, statistics
from narrows.training.streamed_batches import (
    Stream,
    empty_rows,
    held_numbers,
    hold_out,
    read_blocks,
    scan_statistics,
    sorted_sample,
    warn_of_empty_rows,
)
from narrows.training.train_state import TrainState

FEWEST_ROWS_TO_SCALE = 50  # of fewer partial_fit does not decide for good; within about 10 %
FEWEST_ROWS_TO_SPLIT = 20  # of fewer rows all are trained on and validated on
TEST_SEED = 0  # of the rows kept back by test_size
# Rows by which data that is not in memory is recognized: each may cost the reading of a chunk.
HASHED_ROWS = 16
HASHED_TOGETHER = 1 << 26  # bytes
MAX_INIT_ROWS = 4096  # rows that codebooks and pseudo-inputs are initialized from

OVERCOMPLETE_FACTOR = 4  # times the input: latent_dim="auto" of an overcomplete code
KEPT_VARIANCE = 0.9  # share of the scaled variance that latent_dim="auto" keeps

R = TypeVar("R")
S = TypeVar("S", bound=FittedState)


@dataclass(frozen=True)
class FitData(Generic[R]):
    """What a fit is given, checked: rows (or images), validation rows (X_val), and labels."""

    rows: R
    held: R | None
    spec: InputSpec | None = None  # None: images of any size
    classes: NDArray[Any] | None = None  # of a class-conditional model
    labels: NDArray[np.int64] | None = None  # the number of each row's class; 0: unknown

    marks: Marks = field(default_factory=list)  # by what they are recognized

    def for_fit(self, share: float = 0.0, *, whole: bool = False, few: bool = False) -> FitData[R]:
        """The same without rows that are kept back for a test or have no value; marked.

        It warns of rows without a value; those of an X on a disk are left to `hold_out`. ``whole``:
        see `data_marks`. ``few``: partial_fit, of any number of rows, without marks.
        """
        rows, held, labels, picked = self.rows, self.held, self.labels, None
        if isinstance(rows, np.ndarray | CheckedRows) and share > 0:
            test = rows_kept_back(len(rows), share)
            picked = np.delete(np.arange(len(rows)), test)
            rows, labels = without(rows, test), without(labels, test)
        given = [rows, held] if labels is None else [rows, held, labels]
        marks = [] if few else data_marks(given, whole)
        if isinstance(held, np.ndarray | CheckedRows):
            empty = unobserved(held)
            warn_of_empty_rows(empty, len(held), name="X_val", least=1)
            held = without(held, empty)
        if isinstance(rows, np.ndarray) or (few and isinstance(rows, CheckedRows)):
            empty = unobserved(rows)
            warn_of_empty_rows(empty, len(rows), picked, least=0 if few else 2)
            rows, labels = without(rows, empty), without(labels, empty)
        return replace(self, rows=rows, held=held, labels=labels, marks=marks)


def without(rows: Any, numbers: NDArray[np.int64]) -> Any:
    """The rows (or labels, or None) but those of these numbers."""
    if not len(numbers) or not isinstance(rows, np.ndarray | CheckedRows):
        return rows
    kept = np.delete(np.arange(len(rows)), numbers)
    return rows.pick(kept) if isinstance(rows, CheckedRows) else rows[kept]


def unobserved(rows: Given) -> NDArray[np.int64]:
    """The numbers of the rows without any value; rows on a disk are read to find them."""
    if isinstance(rows, np.ndarray):
        return empty_rows(rows)
    blocks = read_blocks(rows) if rows.missing else ()
    return np.concatenate([np.empty(0, int), *(first + empty_rows(some) for first, some in blocks)])


def data_marks(given: Sequence[Any], whole: bool = False) -> Marks:
    """By what X, X_val and the classes, if there are some, are recognized: size, dtype, hashes.

    "sha256" is of ``HASHED_ROWS`` rows from the first to the last, "whole" of all rows (None
    without ``whole``, and for what is not in memory). "streamed" rows are held out and ordered in
    another way.
    """
    return [None if rows is None else _mark(rows, whole) for rows in given]


def _mark(rows: Any, whole: bool) -> dict[str, Any]:
    n, in_array = len(rows), isinstance(rows, np.ndarray)
    some = np.unique(np.linspace(0, n - 1, HASHED_ROWS).astype(int))
    step = max(1, HASHED_TOGETHER // max(1, rows[:1].nbytes)) if in_array else 1
    kept = whole and (rows.in_memory if isinstance(rows, Images) else in_array)
    return {
        "n": n,
        "dtype": str(rows.dtype),
        "sha256": _hashed(rows[i : i + 1] for i in some),
        "whole": _hashed(rows[i : i + step] for i in range(0, n, step)) if kept else None,
        "streamed": not in_array,
    }


def _hashed(parts: Iterable[Any]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(np.ascontiguousarray(part).tobytes())
    return sha.hexdigest()


def same_mark(then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> bool:
    """Whether two marks are those of the same rows, by all that both of them know."""
    if then is None or now is None:
        return then is now
    # older files have no hash of all rows, nor has what is not in memory
    keys = [key for key in ("n", "dtype", "sha256", "whole") if then.get(key) and now[key]]
    return all(then[key] == now[key] for key in keys)


@dataclass(frozen=True)
class Training(Generic[S]):
    """What a run trains: ``start`` is the state before it, whose model is trained in place."""

    start: S
    state: TrainState
    rows: Rows | Stream | Patches
    validation: Rows | Stream
    at_pca: bool = False  # whether it starts there and may need a second start
    saved: Saved | None = None  # where an interrupted run goes on


def setup(
    params: Parameters,
    parts: Parts,
    data: FitData[Given],
    group: Group,
    *,
    bounded: bool = True,
) -> Training[EstimatorState]:
    """Decide every "auto", scale, fit PCA, build the model and start it there.

    ``bounded=False`` (partial_fit: more rows are to come) does not hold outputs to the range of
    these rows, and does not take all rows for binary where these are.
    """
    seed = group.broadcast(seed_of(params.random_state))
    device = pick_device(params.device, group)
    group.check_same_data(data.rows, data.held)
    split = train_validation_split(data, params.validation_fraction, seed, device)
    found = find_range(split.statistics)
    assert data.spec is not None  # only images of any size have none
    _refuse_unobserved(split.statistics[0].low, data.spec)
    # the first of more rows do not tell that all will be zeros and ones, unless by their dtype
    binary = found.binary and (bounded or found.dtype == torch.bool) and found.varies
    distance = choose_distance(params.distance, params.scaling, parts.distance, binary)
    kind = choose_scaling(params.scaling, found, distance)
    scaling = fit_scaling(split.statistics[0], kind)
    _refuse_extremes(scaling, found)
    rows, validation = split.scaled(scaling)
    D = LIKELIHOODS[distance]()
    kinds = D.infer_support(found)
    D.build(rows.shape, kinds)
    own = copy_networks(params.f, params.g)
    n_classes = 0 if data.classes is None else len(data.classes)
    sizes = Sizes(rows.shape, 0, n_classes)
    latent_dim, pca = _choose_width(params, parts, D, rows, own, sizes, seed)
    sizes = replace(sizes, latent_dim=latent_dim)
    config = _resolve(params, parts, sizes, distance, kind, found.shared and bounded, own)
    unexplained = None if pca is None else pca.unexplained
    large = parts.networks is not None or is_large(config)
    precision = choose_precision(params.precision, device, unexplained, large)
    config = replace(config, precision=precision, kinds=kinds)
    rng = torch.Generator().manual_seed(seed)
    model = build_model(parts, config, own, rng, n_classes)
    _set_data_units(model, config, scaling, found)
    state = EstimatorState(
        model=model,
        objective=parts.objective(),
        config=config,
        history=start_history(len(data.rows), len(validation), ERRORS),
        seed=seed,
        parameters=lasting(params),
        spec=data.spec,
        scaling=scaling,
        pca=pca,
        classes=data.classes,
    )
    if config.linear_path and pca is not None:
        error = mean_error(PCABeside(state, pca, bounded=False), validation)
        start_at_pca(model, pca, error)
    init_parts_from_data(parts, model, rows, rng)
    state = replace(state.to(device), model=channels_last(model))
    squared = distance == "mse" and parts.q.start == "point"
    at_pca = config.linear_path and squared and bounded
    return Training(state, new_train_state(seed, device, group), rows, validation, at_pca)


ERRORS = ("validation_error", "validation_error_pca")  # measured on the validation rows


def start_history(n_rows: int, n_validation: int, errors: tuple[str, ...]) -> History:
    """Before the first epoch."""
    return History({"given": n_rows, "validation": n_validation}, dict.fromkeys(errors))


def resume(
    params: Parameters, fitted: EstimatorState, data: FitData[Given], group: Group
) -> Training[EstimatorState]:
    """Training that goes on from a fitted state, with its scaling, on rows like the first.

    It keeps the seed of the first fit: rows once trained on must not become validation rows.
    """
    refuse_changes(params, fitted.parameters)
    start, device = fitted, fitted.scaling.shift.device
    group.check_same_data(data.rows, data.held)
    split = train_validation_split(data, params.validation_fraction, start.seed, device)
    found = find_range(split.statistics)
    _refuse_extremes(start.scaling, found)
    start.model.D.validate(found, start.config.kinds)
    widen_bounds(start.model, *scaled_bounds(start.scaling, found))
    rows, validation = split.scaled(start.scaling)
    history = start_history(len(data.rows), len(validation), ERRORS)
    start = replace(start, history=history, sampler=None, versions=None, first_rows=None)
    start = replace(start, parameters=lasting(params), shown_rows=None)
    state = start.train_state or new_train_state(start.seed, device, group)
    return Training(start, state, rows, validation)


def new_train_state(seed: int, device: torch.device, group: Group) -> TrainState:
    """Private generators, seeded."""
    return TrainState(
        rng=torch.Generator(device).manual_seed(group.rank_seed(seed)),
        order=torch.Generator().manual_seed(seed),
    )


def rows_kept_back(n: int, share: float) -> NDArray[np.int64]:
    """The sorted numbers of the rows among ``n`` that are kept back for a test.

    They do not depend on the seed of a fit, so that models are compared on the same rows.
    """
    count = max(1, round(n * share)) if share > 0 else 0
    if count and n - count < 2:
        raise ParameterError(
            f"test_size={share} leaves {n - count} of {n} rows to fit on; at least 2 are needed: "
            "give a smaller one, or more rows."
        )
    return sorted_sample(n, count, TEST_SEED)


@dataclass(frozen=True)
class Split:
    """Training and validation rows, not scaled yet, and the statistics of both, on the device."""

    training: Rows | Stream
    validation: Rows | Stream
    statistics: list[Statistics]

    def scaled(self, scaling: Scaling) -> tuple[Rows | Stream, Rows | Stream]:
        """Both with their scaling."""
        return replace(self.training, scaling=scaling), replace(self.validation, scaling=scaling)


def validation_rows(
    rows: Given, full: NDArray[np.int64], fraction: float, seed: int, streamed: bool
) -> NDArray[np.int64]:
    """The sorted numbers of the rows of a fit that it held out for validation, none of few.

    ``full`` are those of the rows that have a value.
    """
    if fraction <= 0 or (len(rows) if streamed else len(full)) < FEWEST_ROWS_TO_SPLIT:
        return np.empty(0, dtype=np.int64)
    if streamed:
        return np.intersect1d(held_numbers(rows, fraction, seed), full)
    held: NDArray[np.int64] = full[split_indices(len(full), fraction, seed)[1].numpy()]
    return held


def split_indices(n: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation rows among ``n``, both sorted."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held = max(1, round(n * fraction))
    return order[held:].sort().values, order[:held].sort().values


def train_validation_split(
    data: FitData[Given], fraction: float, seed: int, device: torch.device
) -> Split:
    """Hold out a ``fraction`` of the rows, or none of few; X_val takes the place of those."""
    rows, held = data.rows, data.held
    apart = held is None and fraction > 0 and len(rows) >= FEWEST_ROWS_TO_SPLIT
    if isinstance(rows, CheckedRows):
        training, kept, found = hold_out(rows, fraction if apart else 0, seed, rows.picked)
        validation: Rows | Stream = replace(kept, data=kept.data.to(device))
        if held is not None and held is not rows:
            validation = unscaled(held, device)
        return Split(training, validation, [found.to(device), statistics_of(validation)])
    if apart and isinstance(rows, np.ndarray):
        indices = split_indices(len(rows), fraction, seed)
        both = [unscaled(rows[index.numpy()], device) for index in indices]
    elif held is None or held is rows:
        whole = unscaled(rows, device)
        return Split(whole, whole, [statistics_of(whole)])
    else:
        both = [unscaled(rows, device), unscaled(held, device)]
    return Split(both[0], both[1], [statistics_of(each) for each in both])


def _set_data_units(model: Model, config: ResolvedConfig, scaling: Scaling, found: Range) -> None:
    """Give the parts what depends on the data's units: scale, range, mean."""
    model.D.set_data_units(scaling.shift, scaling.scale, found)
    if model.missing:
        mean = ((found.mean - scaling.shift) / scaling.scale).float()
        model.usual.copy_(model.D.filling(mean.cpu()))
    if model.c is not None:
        set_corruption_units(model.c, scaling, found)
    if config.bounded:
        set_bounds(model, *scaled_bounds(scaling, found))


@torch.no_grad()
def init_parts_from_data(
    parts: Parts, model: Model, rows: Rows | Stream, rng: torch.Generator
) -> None:
    """Show training rows to the parts that start from some: codebooks, pseudo-inputs."""
    regularizers = (term.regularizer for term in parts.terms)
    every = (parts.q, parts.p, *regularizers)
    started = [part for part in every if part is not None and part.starts_from_data]
    if started:
        x = rows.sample(int(torch.randint(2**31 - 1, (), generator=rng)))
        x, _ = model.fill_missing(x[torch.randperm(len(x), generator=rng)[:MAX_INIT_ROWS]])
        for part in started:
            part.init_from_data(x, model, rng)


def _refuse_extremes(scaling: Scaling, found: Range) -> None:
    reach = max(float(((end - scaling.shift) / scaling.scale).abs().max()) for end in found.each)
    if not reach < MAX_SCALED:
        raise InputError(
            f"X holds values of {reach:.0e} once scaled, whose squares overflow float32; drop such "
            'rows, or leave scaling="auto".'
        )


def _refuse_unobserved(low: Tensor, spec: InputSpec) -> None:
    """Refuse an element that is NaN in every training row."""
    if bool(low.isinf().any()):
        at, names = low.isinf().nonzero()[0], spec.feature_names
        place = ", ".join(str(int(i)) for i in at) if names is None else repr(names[int(at[0])])
        raise InputError(
            f"Column ({place}) of X is NaN in every training row; drop it, or give rows that have "
            "it."
        )


def _choose_width(
    params: Parameters,
    parts: Parts,
    D: Likelihood,
    rows: Rows | Stream,
    own: tuple[nn.Module, nn.Module] | None,
    sizes: Sizes,
    seed: int,
) -> tuple[int, PCA | None]:
    """The width of the code, and PCA at that width (None where it would be too large)."""
    asked = params.latent_dim
    if own is not None:
        asked = try_networks(own, parts, D, sizes, asked)
    if parts.q.overcomplete:
        asked = OVERCOMPLETE_FACTOR * math.prod(rows.shape) if isinstance(asked, str) else asked
    else:
        check_latent_dim(asked, rows.shape)
    if isinstance(asked, str):
        pca = fit_pca(rows, MAX_COMPONENTS, seed)
        width = max(
            parts.q.min_latent_dim, min(pca.held(KEPT_VARIANCE), math.prod(rows.shape) // 2)
        )
        return width, pca.cut(width)
    width = int(asked)
    beside = parts.q.pca_dim(width)
    return width, fit_pca(rows, beside, seed) if path_fits(rows.shape, beside) else None


def _obstacle(parts: Parts, n_given: int, own: bool) -> str | None:
    """What prevents a start at PCA, other than D; None where nothing does."""
    if own:
        return "your own networks"
    if parts.q.start is None:
        return f"the latent {part_name(parts.q)}"
    if parts.networks is not None or n_given:
        return "networks of a kind of their own"
    return None


def _resolve(
    params: Parameters,
    parts: Parts,
    sizes: Sizes,
    distance: str,
    scaling: str,
    bounded: bool,
    own: tuple[nn.Module, nn.Module] | None,
) -> ResolvedConfig:
    """The configuration with every "auto" decided."""
    shape, given, n_given = sizes.shape, own is not None, parts.model.n_given(sizes)
    obstacle = _obstacle(parts, n_given, given)
    architecture = choose_architecture(params.architecture, shape, given)
    hidden = _widths(params.hidden_layer_sizes)
    if hidden is None and architecture == "dense" and parts.networks is None:
        hidden = default_widths(math.prod(shape), sizes.latent_dim)
    return ResolvedConfig(
        shape=shape,
        latent_dim=sizes.latent_dim,
        architecture=architecture,
        hidden=hidden,
        channels=_widths(params.channels),
        down=params.down,
        up=params.up,
        activation="gelu" if params.activation == "auto" else params.activation,
        tied=params.tied,
        distance=distance,
        scaling=scaling,
        linear_path=choose_path(params.linear_path, distance, shape, sizes.latent_dim, obstacle),
        bounded=bounded and LIKELIHOODS[distance].real and not given and parts.networks is None,
    )


def _widths(asked: object) -> tuple[int, ...] | None:
    return None if isinstance(asked, str) else as_ints(asked)


# ---------------------------------------------------------------------- what "auto" becomes


def find_range(parts: Sequence[Statistics]) -> Range:
    """Whether x is binary, and whether its elements share a range that is a true bound.

    They do if at least half of the elements that vary reach both extremes of their channel
    exactly, as pixels do and measurements do not; images of bytes always do. ``parts`` are the
    statistics of the training and the validation rows: "never below PCA" holds for both.
    """
    low = torch.stack([part.low for part in parts]).amin(0)
    high = torch.stack([part.high for part in parts]).amax(0)
    dims = shared_axes(low.ndim)
    lowest, highest = low.amin(dims, keepdim=True), high.amax(dims, keepdim=True)
    varies = high > low
    reaches = (low == lowest) & (high == highest) & varies
    shared = bool(varies.sum() >= 2) and bool(reaches.sum() * 2 >= varies.sum())
    if parts[0].dtype == torch.uint8 and low.ndim > 1 and not shared:
        lowest, highest, shared = torch.zeros_like(lowest), torch.full_like(highest, 255.0), True
    return Range(
        binary=all(part.binary for part in parts),
        shared=shared,
        low=lowest,
        high=highest,
        each=(low, high),
        mean=parts[0].mean,
        whole=torch.stack([part.whole for part in parts]).all(0),
        dtype=parts[0].dtype,
    )


def unscaled(rows: Given, device: torch.device) -> Rows | Stream:
    """Checked rows in batches, before a scaling is known."""
    as_is = Scaling.none().to(device)
    if isinstance(rows, CheckedRows):
        return Stream(rows, as_is, np.empty(0, dtype=np.int64))
    return Rows(as_tensor(rows).to(device), as_is)


def statistics_of(rows: Rows | Stream) -> Statistics:
    """Range, mean and spread of unscaled rows, from one pass."""
    if isinstance(rows, Stream):
        found = scan_statistics(rows.source, rows.held, apart=True)[1]
        return found.to(rows.scaling.shift.device)
    return statistics([rows.data])


def choose_scaling(asked: str, found: Range, distance: str) -> str:
    """One shift and scale where elements share their units, else one for each column."""
    if not LIKELIHOODS[distance].scaled:
        if asked not in ("auto", "none"):
            raise ParameterError(
                f"distance={distance!r} takes values as they are, but scaling={asked!r} "
                'would change them; leave scaling="auto".'
            )
        return "none"
    if asked != "auto":
        return asked
    return "column" if found.each[0].ndim == 1 and not found.shared else "shared"


def choose_distance(asked: str, scaling: str, model_default: str, binary: bool) -> str:
    """Bernoulli for zeros and ones, unless a scaling was asked for; else the model's default."""
    if asked != "auto":
        return asked
    return "bernoulli" if binary and scaling in ("auto", "none") else model_default


# Up to 32 × 32 grey pixels dense networks reached a lower error in the same time (see
# benchmarks/results/reconstruction.md); for larger images their matrices grow too fast.
MAX_DENSE_SIZE = 1024


def choose_architecture(asked: str, shape: tuple[int, ...], own: bool) -> str:
    """Dense for tables and small images, conv for larger signals and images."""
    if own:
        return "own"
    if asked == "conv" and len(shape) == 1:
        raise ParameterError(
            'architecture="conv" needs signals or images, but X is a table; give input_shape, '
            'reshape X, or choose architecture="dense".'
        )
    if asked != "auto":
        return asked
    return "dense" if len(shape) == 1 or math.prod(shape) <= MAX_DENSE_SIZE else "conv"


def check_latent_dim(asked: int | str, shape: tuple[int, ...]) -> None:
    """Warn where the code is no narrower than the input."""
    features = math.prod(shape)
    if not isinstance(asked, str) and asked >= features:
        warnings.warn(
            f"latent_dim={asked} is not smaller than the {features} numbers of a sample: such a "
            "code can copy its input and need not learn anything; choose a smaller one.",
            UserWarning,
            stacklevel=4,
        )


def choose_path(
    asked: object, distance: str, shape: tuple[int, ...], k: int, obstacle: str | None
) -> bool:
    """Whether the model starts at PCA: wherever g(z) is x' itself, and the path not too large.

    ``obstacle`` is what else prevents it, in words.
    """
    possible = LIKELIHOODS[distance].real and obstacle is None
    if asked is True and not possible:
        reason = obstacle or f"distance={distance!r}"
        raise ParameterError(
            f"linear_path=True starts the model at PCA, which has no meaning with {reason}; "
            'leave linear_path="auto".'
        )
    fits = path_fits(shape, k)
    if possible and not fits and asked is not False:
        features = math.prod(shape)
        warnings.warn(
            f"A linear path between {features:,} numbers and a code of {k:,} would be too large: "
            "the model starts at random weights, not at PCA, and may end below it.",
            UserWarning,
            stacklevel=5,
        )
    return bool(asked) and possible and fits


# If PCA leaves less than this share of the variance, bfloat16's rounding would dominate the error.
MIN_UNEXPLAINED_VARIANCE = 1e-3


# Below these sizes a step in bfloat16 takes longer on a CPU (1.1 to 1.6 times, measured on AMX):
# its casts cost more than its products save.
LARGE_LAYER = 512  # units
LARGE_EVENT = 256  # numbers in an image or signal


def is_large(config: ResolvedConfig) -> bool:
    """Whether products take most of a step, so that bfloat16 saves time on a CPU, too."""
    features = math.prod(config.shape)
    if config.architecture == "dense":
        return max(config.hidden or dense_widths(features)) >= LARGE_LAYER
    return config.architecture == "own" or features >= LARGE_EVENT


def choose_precision(
    asked: str, device: torch.device, unexplained: float | None, large: bool
) -> str:
    """bfloat16 where the hardware multiplies it faster and the data leave room for its rounding.

    ``unexplained`` is the share of the variance that PCA at the code's width leaves; None where
    PCA was not fitted: then float32. On a CPU networks have to be ``large``.
    """
    if asked != "auto":
        return asked
    room = unexplained is not None and unexplained >= MIN_UNEXPLAINED_VARIANCE
    gains = multiplies_bfloat16(device) and (large or device.type != "cpu")
    return "bfloat16" if room and gains else "float32"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware is made for products of bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # private, and the only way torch tells; a torch without them decides for float32
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)
