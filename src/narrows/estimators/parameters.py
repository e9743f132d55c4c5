"""The parameters that models share, declared once.

This module imports neither torch nor scikit-learn, so that the command line can print its help
at once; a test checks this. What a parameter may be is data next to it (``choices``,
``low``, ``auto``), so that one checker writes every sentence.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from inspect import signature
from os import PathLike
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from narrows.exceptions import ParameterError, UnknownParameterError, did_you_mean
from narrows.training.listeners import Listeners

SEEDS = {"low": 0, "high": 2**32 - 1}
MAX_LAYER_WIDTH = 2**20  # numbers in a layer: a mistyped width must not ask for all memory
MAX_SIDE = 2**31  # of a sample, in numbers along one axis
MAX_LAYERS = 256  # in a tuple: twenty thousand layers take minutes to build
MAX_DEVICES = 256  # on one machine: a mistyped number must not start thousands of processes
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
AXES = (None, "CL", "HW", "CHW", "HWC")


C = TypeVar("C", bound=type)


def named_plainly(cls: C) -> C:
    """A class decorator: Python's errors about a call name the method without this inner class."""
    for name, member in vars(cls).items():
        method = getattr(member, "fn", member)  # behind scikit-learn's available_if
        while isinstance(method, FunctionType) and not name.startswith("_"):
            method.__qualname__ = name
            method = getattr(method, "__wrapped__", None)
    return cls


# The scope of a parameter decides whether it may change later and whether a file stores it.
MODEL = "model"  # what the model is made of: must be the same when a fit continues from it
MODULE = "module"  # the same, but a Python object: neither in a file nor an option of the command
FIT = "fit"  # how one fit trains: may change before the next warm_start or partial_fit
CALL = "call"  # may also differ when a run is resumed from its checkpoint
PLACE = "place"  # the same, and not written to a file
OBJECT = "object"  # the same, and no option of the command


def parameter(default: Any, help: str, *, scope: str = MODEL, **rule: Any) -> Any:
    """A dataclass field with its help text, its scope (above) and its rule.

    The rule is ``choices``, or ``kind`` with ``low``, ``high``, ``open``, ``auto``, ``none``.
    """
    return field(default=default, metadata={"help": help, "scope": scope, **rule})


Rule = Mapping[str, Any]


def stored(default: Any = MISSING, **rule: Any) -> Any:
    """A dataclass field that a file's header holds, with its rule."""
    return field(default=default, metadata=rule)


def rules_of(cls: type) -> dict[str, Any]:
    """The rule of a whole dataclass: those of its fields; one with a default may be missing."""
    own = fields(cls)
    optional = {item.name for item in own if item.default is not MISSING}
    return {"fields": {item.name: item.metadata for item in own}, "optional": optional}


def resolved(name: str) -> dict[str, Any]:
    """The rule of a shared parameter once it is no longer "auto"."""
    given = next(item.metadata for item in fields(Parameters) if item.name == name)
    rule = {key: value for key, value in given.items() if key not in ("auto", "help", "scope")}
    if "choices" in rule:
        rule["choices"] = tuple(choice for choice in rule["choices"] if choice != "auto")
    return rule


def find_fault(value: Any, rule: Rule) -> str:
    """What is wrong with a value that was read from a file, after its place; "" if nothing is.

    Besides the rules of parameters: ``fields`` (an object with these names, and no others) and
    ``each`` (the rule of every item of a list, or with ``named`` of an object), at most ``most``.
    """
    if value is None and rule.get("none"):
        return ""
    items: Iterable[tuple[Any, Any]] = ()
    if "fields" in rule:
        if not isinstance(value, dict):
            return f" must be an object, not {reprlib.repr(value)}"
        unknown = value.keys() - rule["fields"].keys()
        missing = rule["fields"].keys() - value.keys() - rule.get("optional", set())
        if unknown or missing:
            found = (", ".join(sorted(names)[:9])[:200] or "none" for names in (unknown, missing))
            return " has unknown fields: {}; missing: {}".format(*found)
        items = value.items()
    elif "each" in rule:
        kind = dict if rule.get("named") else list
        if not isinstance(value, kind) or len(value) > rule["most"]:
            noun = "an object" if kind is dict else "a list"
            return f" must be {noun} of at most {rule['most']} items, not {reprlib.repr(value)}"
        items = value.items() if isinstance(value, dict) else enumerate(value)
    elif not _allows(rule, value):
        return f" must be {_describe(rule)}, not {reprlib.repr(value)}"
    for name, item in items:
        fault = find_fault(item, rule["fields"][name] if "fields" in rule else rule["each"])
        if fault:
            return f".{str(name)[:50]}{fault}"
    return ""


def nonnegative(default: float, help: str) -> Any:
    """A parameter that is a number of at least 0, as the weight of a term."""
    return parameter(default, help, kind=float, low=0)


def fraction(default: float, help: str) -> Any:
    """A parameter that is a number from 0 to 1."""
    return parameter(default, help, kind=float, low=0, high=1)


def names_in_scope(owner: RunParameters | type[RunParameters], *scopes: str) -> list[str]:
    """The parameters of a model or its class that have one of these scopes."""
    return [item.name for item in fields(owner) if item.metadata.get("scope", MODEL) in scopes]


@dataclass(kw_only=True, eq=False, repr=False)
class RunParameters:
    """Parameters of training: the same for every estimator."""

    max_epochs: int | str = parameter(
        "auto",
        "Largest number of passes over the training rows. auto: 100, or as many as take 40,000 "
        "steps.",
        kind=int,
        low=0,
        auto=True,
        scope=FIT,
    )
    max_time: float | str | None = parameter(
        None,
        'Time limit of training: seconds, or a text such as "90s", "3m", "1.5h".',
        kind="time",
        none=True,
        scope=FIT,
    )
    batch_size: int | str = parameter(
        "auto",
        "Rows per step. auto: a tenth of the training rows, at least 16, at most 128; for dense "
        "networks 256 from 10,000 rows and 512 from 20,000, where that leaves 2,000 steps.",
        kind=int,
        low=1,
        auto=True,
        scope=FIT,
    )
    learning_rate: float | str = parameter(
        "auto",
        "Largest learning rate of AdamW: it warms up, stays constant for a while in short runs, "
        "and falls linearly to zero. auto: 0.004 times the square root of batch_size / 128.",
        kind=float,
        low=0,
        open=True,
        auto=True,
        scope=FIT,
    )
    precision: str = parameter(
        "auto",
        "Precision of products in training; weights, sums and everything after training are "
        "float32. auto: bfloat16 on hardware made for it (AMX, AVX512-BF16, CUDA), unless PCA "
        "already explains 99.9 % of the variance or, on a CPU, the networks are small.",
        choices=("auto", "float32", "bfloat16"),
    )
    weight_decay: float | str = parameter(
        "auto",
        "AdamW's weight decay. auto: 10 × parameters of the networks ÷ numbers in X, at most 0.3, "
        "as networks that are small for the data cannot learn rows by heart; at most 0.01 in "
        "partial_fit and for Codec, Denoiser and VAEGAN.",
        kind=float,
        low=0,
        auto=True,
        scope=FIT,
    )
    early_stopping: bool = parameter(
        True,
        "Stop when the validation loss no longer falls: the learning rate falls to zero from the "
        "best model, which is kept.",
        kind=bool,
        scope=FIT,
    )
    n_iter_no_change: int | str = parameter(
        "auto",
        "Epochs without a better validation loss before stopping. auto: 20; as many as take 2,000 "
        "steps once the loss is well below that of the start; 8 where the training loss has fallen "
        "much further.",
        kind=int,
        low=1,
        auto=True,
        scope=FIT,
    )
    validation_fraction: float = parameter(
        0.1,
        "Share of the rows held out for validation; 0 validates on the training rows.",
        kind=float,
        low=0,
        high=0.9,
        scope=FIT,
    )
    warm_start: bool = parameter(
        False,
        "fit continues from the fitted model instead of starting again.",
        kind=bool,
        scope=CALL,
    )
    random_state: object = parameter(
        None, "Seed: the same seed gives the same bits.", kind="seed", scope=FIT
    )
    device: str = parameter(
        "auto",
        "Device to compute on: auto, cpu, cuda, cuda:1, mps. auto: cuda if there is one.",
        kind="device",
        scope=FIT,
    )
    n_devices: int = parameter(
        1,
        "Number of processes in fit, one for each CUDA device; on the CPU they share the threads. "
        "Under torchrun, torchrun sets the number.",
        kind=int,
        low=1,
        high=MAX_DEVICES,
        scope=CALL,
    )
    checkpoint: str | Path | None = parameter(
        None,
        "File that holds the run while it is training; it loads like a model, the best so far. "
        "The command uses OUT.checkpoint and removes it at the end.",
        kind="path",
        none=True,
        scope=PLACE,
    )
    checkpoint_every: int | str = parameter(
        "30s",
        'Interval between checkpoints: a time ("5m"), or a number of epochs.',
        kind="every",
        low=1,
        scope=PLACE,
    )
    resume: bool = parameter(
        False,
        "Continue from the checkpoint, to the same result as without an interruption; without a "
        "checkpoint, start from the beginning.",
        kind=bool,
        scope=PLACE,
    )
    verbose: bool | str = parameter(
        "auto",
        "Show a progress bar (on a terminal). auto: after 3 seconds.",
        kind=bool,
        auto=True,
        scope=CALL,
    )
    listeners: object = parameter(
        None,
        "Called at the start, after every epoch and at the end of a fit: a Listener (JsonLines, "
        "TensorBoard, MLflow, WandB or your own), a callable that takes the epoch's entry of "
        "history_, or a list of these; one that returns True stops the fit.",
        scope=OBJECT,
    )

    if not TYPE_CHECKING:  # a type checker takes the signature of __init__

        def __new__(cls, *args: object, **given: object) -> RunParameters:
            _refuse_unknown(cls, given)
            return super().__new__(cls)

        def set_params(self, **params: object) -> RunParameters:
            """Set parameters, as scikit-learn does; UnknownParameterError names the nearest."""
            _refuse_unknown(type(self), params)
            return super().set_params(**params)

    def check_parameters(self) -> None:
        """Raise ParameterError for a value that its rule does not allow; the first step of fit."""
        for item in fields(self):
            _check(type(self).__name__, item, vars(self)[item.name])
        Listeners(self.listeners)  # raises ParameterError for values that cannot be listeners


def _refuse_unknown(owner: type[RunParameters], given: Mapping[str, object]) -> None:
    """Refuse names that are no parameters; ``name__sub`` sets a parameter of a parameter."""
    known = list(signature(owner.__init__).parameters)[1:]  # "self" is the first
    for name in given:
        if name.partition("__")[0] not in known:
            raise UnknownParameterError(
                f"{owner.__name__} has no parameter {name!r}.{did_you_mean(name, known)} "
                f"{owner.__name__}().get_params() lists all."
            )


def in_order(model: RunParameters | type[RunParameters]) -> list[Field[Any]]:
    """The parameters of a model or its class: first what it is made of, then how it is trained."""
    run = {item.name for item in fields(RunParameters)}
    return sorted(fields(model), key=lambda item: item.name in run)


@dataclass(kw_only=True, eq=False, repr=False)
class Parameters(RunParameters):
    """Parameters of models for rows of one shape; ``info`` shows what each ``"auto"`` became."""

    latent_dim: int | str = parameter(
        "auto",
        "Numbers in the code z. auto: the number of PCA components that explain 90 % of the scaled "
        "variance, at most half the width of the input.",
        kind=int,
        low=1,
        high=MAX_LAYER_WIDTH,
        auto=True,
    )
    architecture: str = parameter(
        "auto",
        "Networks f and g. auto: dense for tables and for samples of up to 1,024 numbers, conv for "
        "larger signals and images.",
        choices=("auto", "dense", "conv"),
    )
    hidden_layer_sizes: tuple[int, ...] | str = parameter(
        "auto",
        "Widths of the dense encoder's layers, such as 512,256; the decoder mirrors them. "
        "In a conv network: dense layers between feature maps and code. auto: w, w, w/2 with w "
        "about twice the input, 128 to 512; with 512 and a code of more than 10 numbers w, w/2; "
        "none in a conv network.",
        kind=tuple,
        low=1,
        high=MAX_LAYER_WIDTH,
        auto=True,
    )
    channels: tuple[int, ...] | str = parameter(
        "auto",
        "Channels of the conv encoder's stages, such as 32,64; each stage halves the image. auto: "
        "32, doubling up to 256, until no side is longer than 7.",
        kind=tuple,
        low=1,
        high=MAX_LAYER_WIDTH,
        auto=True,
    )
    down: str = parameter(
        "stride",
        "How a conv encoder halves the size: strided convolution, or convolution and max-pooling.",
        choices=("stride", "pool"),
    )
    up: str = parameter(
        "transpose",
        "How a conv decoder doubles the size: transposed convolution, or upsampling (nearest, "
        "bilinear, pixel shuffle) with a convolution.",
        choices=("transpose", "nearest", "bilinear", "shuffle"),
    )
    activation: str = parameter(
        "auto",
        "Non-linearity. auto: gelu.",
        choices=("auto", "gelu", "silu", "relu", "tanh", "identity"),
    )
    tied: bool = parameter(
        False, "The dense decoder uses the encoder's weights, transposed.", kind=bool
    )
    linear_path: bool | str = parameter(
        "auto",
        "A linear path from x to z and from z to x that starts at PCA. auto: if outputs are real "
        "numbers and the path is not too large.",
        choices=("auto", True, False),
    )
    f: object = parameter(
        None, "Your own encoder, an nn.Module from (B, *shape) to (B, numbers).", scope=MODULE
    )
    g: object = parameter(
        None, "Your own decoder, an nn.Module from (B, latent_dim) to (B, *shape).", scope=MODULE
    )
    distance: str = parameter(
        "auto",
        "D between x and g(z). auto: bernoulli for data of zeros and ones; else mse, and for a "
        "variational model gaussian. gaussian and laplace learn the scale that mse and mae fix at "
        "1. For integers: logistic (grey levels), categorical (up to 256 classes), poisson and "
        "negative_binomial (counts). mixed: tables, each column by its kind. ms_ssim: images, by "
        "structure; no density.",
        choices=(
            "auto",
            "mse",
            "mae",
            "huber",
            "bernoulli",
            "gaussian",
            "laplace",
            "logistic",
            "categorical",
            "poisson",
            "negative_binomial",
            "mixed",
            "ms_ssim",
        ),
    )
    scaling: str = parameter(
        "auto",
        "Standardization of X, undone in all outputs. column: each column; shared: one shift and "
        "scale (per channel). auto: column for tables, shared for signals, images, and tables "
        "whose columns share one range.",
        choices=("auto", "column", "shared", "none"),
    )
    missing: str = parameter(
        "refuse",
        "Meaning of NaN in X. refuse: an error. mask: a missing value; it is ignored, and impute "
        "fills it in.",
        choices=("refuse", "mask"),
    )
    test_size: float = parameter(
        0.0,
        "Share of the rows that fit keeps back: neither trained nor validated on, the same rows "
        "for every seed. A report measures on them. partial_fit uses all rows.",
        kind=float,
        low=0,
        high=0.9,
        scope=FIT,
    )
    sampler: str = parameter(
        "auto",
        "Distribution of codes for new samples. prior: the model's own p(z). Fitted to the codes "
        "of training rows after training: normal (one Gaussian), mixture (up to 10 Gaussians), "
        "maf or iaf (a flow), two_stage (a second VAE), autoregressive (over the integers of a "
        "quantizer). auto: prior if there is one, mixture for RegularizedAE, autoregressive for "
        "quantizers; else none.",
        choices=(
            "auto",
            "none",
            "prior",
            "normal",
            "mixture",
            "maf",
            "iaf",
            "two_stage",
            "autoregressive",
        ),
        scope=FIT,
    )
    axes: str | None = parameter(
        None,
        "Meaning of the axes of a sample. None: HW if X has three dimensions, CHW if it has four, "
        "HWC for a last axis of one channel; a shape that may be either is refused.",
        choices=AXES,
    )
    input_shape: tuple[int, ...] | None = parameter(
        None,
        "Reshape each row of a two-dimensional X to this shape, such as 28,28: for tables that "
        "hold images.",
        kind=tuple,
        low=1,
        none=True,
    )
    in_memory: bool | str = parameter(
        "auto",
        "Whether data that is read by slices, such as a memory map, is loaded into memory. auto: "
        "if it takes less than a quarter of the free memory.",
        choices=("auto", True, False),
        scope=CALL,
    )


def _check(owner: str, item: Field[Any], value: object) -> None:
    rule = item.metadata
    if not _allows(rule, value):
        close = did_you_mean(value, rule["choices"]) if "choices" in rule else ""
        raise ParameterError(
            f"The {item.name!r} parameter of {owner} must be {_describe(rule)}. "
            f"Got {repr(value)[:300]} instead.{close}"
        )


def _allows(rule: Rule, value: object) -> bool:
    if "choices" in rule:
        return any(value is c or (type(value) is type(c) and value == c) for c in rule["choices"])
    return "kind" not in rule or _fits(value, rule)


def _fits(value: object, rule: Rule) -> bool:
    if (rule.get("auto") and isinstance(value, str) and value == "auto") or (
        rule.get("none") and value is None
    ):
        return True
    kind = rule["kind"]
    if kind is bool:
        return isinstance(value, bool)
    if kind is str:
        return isinstance(value, str) and len(value) <= rule["most"]
    if kind is tuple:
        given = _listed(value)
        return len(given) <= rule.get("most", MAX_LAYERS) and all(
            _is_number(v, int, rule) for v in given
        )
    if kind == "range" and isinstance(value, tuple | list):
        numbers = all(_is_number(v, float, rule) for v in value)
        return len(value) == 2 and numbers and value[0] <= value[1]
    if kind == "class":
        return isinstance(value, str | bool) or _is_number(value, float, {})
    if kind == "time":
        return _is_number(value, float, {"low": 0, "open": True}) or parse_time(value) is not None
    if kind == "path":
        return isinstance(value, str | PathLike) and str(value) != ""
    if kind == "device":
        return isinstance(value, str) and DEVICE.fullmatch(value) is not None
    if kind == "every":
        return _is_number(value, int, rule) or parse_time(value) is not None
    if kind == "seed":
        return value is None or hasattr(value, "randint") or _is_number(value, int, SEEDS)
    return _is_number(value, float if kind == "range" else kind, rule)


def _listed(value: Any) -> list[Any]:
    """One number, a tuple, a list or an array of numpy as a list."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, tuple | list) else [value]


def as_ints(value: object) -> tuple[int, ...]:
    """The value of a parameter that is one int or some.

    >>> as_ints(32), as_ints([32, 16])
    ((32,), (32, 16))
    """
    return tuple(int(v) for v in _listed(value))


def check_value(name: str, value: object, **rule: Any) -> None:
    """Raise ParameterError for a value that the rule of an argument does not allow."""
    if not _fits(value, rule):
        raise ParameterError(f"{name} must be {_describe(rule)}. Got {value!r} instead.")


def seed_of(random_state: Any) -> int:
    """A seed from None, an int or a RandomState; numpy's global state is never drawn from.

    Raises ``ParameterError`` for anything else.
    """
    import numpy as np

    check_value("random_state", random_state, kind="seed")
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if hasattr(random_state, "randint"):
        return int(random_state.randint(2**31 - 1))
    return int(random_state)


def lasting(params: RunParameters) -> dict[str, Any]:
    """The parameters that a fitted model is made of, with their values; arrays as tuples."""
    found = {name: vars(params)[name] for name in names_in_scope(params, MODEL, MODULE)}
    tuples = {item.name for item in fields(params) if item.metadata.get("kind") is tuple}
    given = {name: found[name] for name in tuples & found.keys()}
    return found | {n: as_ints(v) for n, v in given.items() if not isinstance(v, str | None)}


def refuse_changes(params: RunParameters, before: dict[str, Any]) -> None:
    """Refuse to go on from a model that was fitted with other parameters (of `lasting`)."""
    now = lasting(params)
    changed = [name for name, value in before.items() if now[name] is not value != now[name]]
    if changed:
        raise ParameterError(
            f"Training would go on from a model that was fitted with other {', '.join(changed)}; "
            "set them back, or fit anew with warm_start=False."
        )


def _is_number(value: object, kind: type, rule: Rule) -> bool:
    # numpy's scalars count as numbers here: GridSearchCV hands them over
    if isinstance(value, bool) or not hasattr(value, "__float__") or getattr(value, "shape", None):
        return False
    if kind is int and not hasattr(value, "__index__"):
        return False
    try:
        number = float(value)
    except OverflowError:  # an int of more than 300 digits
        return False
    low, high = rule.get("low", -math.inf), rule.get("high", math.inf)
    inside = low < number < high if rule.get("open") else low <= number <= high
    return math.isfinite(number) and inside


def _describe(rule: Rule) -> str:
    if "choices" in rule:
        return "one of " + ", ".join(repr(c) for c in rule["choices"][:20])
    kind = rule["kind"]
    if kind is bool:
        return "True or False"
    if kind == "time":
        return 'None, seconds above 0, or a time such as "90s", "3m" or "1.5h"'
    if kind == "class":
        return "a number or a word"
    if kind == "path":
        return "None, or the name of a file"
    if kind == "device":
        return "'auto', 'cpu', or for a GPU 'cuda' ('cuda:1': the second one) or 'mps'"
    if kind == "every":
        return 'a number of epochs, at least 1, or a time such as "30s" or "5m"'
    if kind == "seed":
        return f"None, an int from 0 to {SEEDS['high']}, or a numpy RandomState"
    nouns = {
        int: "an int",
        str: f"a text of at most {rule.get('most')} characters",
        tuple: f"an int or a tuple of ints (at most {rule.get('most', MAX_LAYERS)}), each",
        "range": "a number, or two (low, high),",
    }
    noun = nouns.get(kind, "a number")
    low, high = rule.get("low"), rule.get("high")
    strict = rule.get("open")
    bounds = [] if low is None else [f"{'above' if strict else 'at least'} {low}"]
    bounds += [] if high is None else [f"{'below' if strict else 'at most'} {high}"]
    others = [name for key, name in (("auto", "'auto'"), ("none", "None")) if rule.get(key)]
    return " or ".join([*others, " ".join([noun, " and ".join(bounds)])])


def parse_time(text: object) -> float | None:
    """Seconds in ``text`` ("90", "90s", "3m", "1.5h"); None where it is no such time."""
    if not isinstance(text, str) or not text:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], units[text[-1]]) if text[-1] in units else (text, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        return None
    return seconds if 0 < seconds < math.inf else None
