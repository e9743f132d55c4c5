"""One fit by the training loop: its configuration, its run, its checkpoints, and worker processes.

A checkpoint is a model file, the best model so far, with the state of the run beside it: it loads
like any other, and ``fit`` goes on from it to the same bits as if it had not been interrupted.
"""

from __future__ import annotations

import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from narrows._types import Clock
from narrows.estimators.fit_setup import FitData, Training, same_mark
from narrows.estimators.fitted_state import FittedState, History, Tensors, without_prefix
from narrows.estimators.model_file import plain
from narrows.estimators.parameters import (
    FIT,
    MODEL,
    MODULE,
    RunParameters,
    names_in_scope,
    parse_time,
)
from narrows.estimators.summary import describe_run
from narrows.exceptions import FileError, InputError, ParameterError
from narrows.io.safetensors_file import write_file
from narrows.io.write import check_output
from narrows.parts.networks.linear_path import lr_multipliers, start_over
from narrows.training import launched
from narrows.training.batches import inference_batch, n_batches
from narrows.training.checkpoint import (
    Marks,
    Saved,
    load_from_file,
    load_state_dict,
    state_dict,
)
from narrows.training.cooldown import Cooldown, Patience
from narrows.training.launcher import Interrupt, catch_interrupts
from narrows.training.listeners import Listeners
from narrows.training.loop import train
from narrows.training.monitor import Monitor, average_score
from narrows.training.process_group import Group, current_group, refuse_devices
from narrows.training.second_start import SecondStart
from narrows.training.train_state import (
    Budget,
    StepRecord,
    TrainConfig,
    TrainState,
    make_optimizers,
)

SHORT_RUN = 10  # epochs up to which half a run keeps the full learning rate
LR_BACKOFF = 0.1  # times the learning rate, for the one new try after a loss that is not finite
# Rows from which larger batches reach a lower error in the same time, where steps are left to take
LARGE_BATCHES = {10_000: 256, 20_000: 512}
FEWEST_STEPS = 2000
# Weight decay: parameters ÷ numbers in X, times this: networks that are small for the data cannot
# learn rows by heart. In partial_fit how many rows will come is not known: at most so much.
DECAY_PER_PARAMETER, PARTIAL_FIT_DECAY = 10.0, 0.01
MOST_EPOCHS, MOST_STEPS = 100, 40_000  # that max_epochs="auto" takes
# Patience, if not asked for; as many epochs of few steps are too noisy to judge by
IDLE_EPOCHS, OVERFIT_EPOCHS, PATIENT_STEPS = 20, 8, 2000
Content = tuple[Tensors, dict[str, Any]]  # of a model file: tensors and header


def usual_batch(n_rows: int, max_epochs: int | str = 0) -> int:
    """What batch_size="auto" becomes; ``max_epochs=0``: no large batches."""
    epochs = MOST_EPOCHS if isinstance(max_epochs, str) else max_epochs
    enough = [
        size
        for least, size in LARGE_BATCHES.items()
        if n_rows >= least and n_rows * epochs >= size * FEWEST_STEPS
    ]
    return max(enough, default=max(16, min(128, n_rows // 10)))


def epochs_of(asked: int | str, n_rows: int, batch_size: int) -> int:
    """The largest number of epochs: as asked, or what "auto" becomes."""
    if isinstance(asked, str):
        return max(1, min(MOST_EPOCHS, MOST_STEPS // n_batches(n_rows, batch_size)))
    return int(asked)


def usual_decay(training: Training[Any], most: float) -> float:
    """What weight_decay="auto" becomes: less for networks too small to learn all rows by heart."""
    numbers = len(training.rows) * math.prod(training.rows.shape)
    n_parameters = sum(parameter.numel() for parameter in training.start.model.parameters())
    return min(most, DECAY_PER_PARAMETER * float(n_parameters) / max(1, numbers))


@dataclass(frozen=True)
class Usual:
    """What "auto" means for the models of a class."""

    learning_rate: float = 4e-3  # for batches of 128
    weight_decay: float = 0.3


def train_config(
    params: RunParameters,
    training: Training[Any],
    batch_size: int,
    usual: Usual,
    *,
    constant: bool = False,
) -> TrainConfig:
    """The default configuration with the user's parameters.

    ``batch_size`` and ``usual`` are what "auto" means; ``constant``: partial_fit, which has no
    schedule.
    """
    batch = batch_size if isinstance(params.batch_size, str) else int(params.batch_size)
    rate, decay = params.learning_rate, params.weight_decay
    epochs = epochs_of(params.max_epochs, len(training.rows), batch)
    if isinstance(decay, str):
        most = min(usual.weight_decay, PARTIAL_FIT_DECAY) if constant else usual.weight_decay
        decay = usual_decay(training, most)
    if isinstance(rate, str):
        rate = usual.learning_rate * math.sqrt(batch / 128)  # small batches give noisier steps
    return TrainConfig(
        learning_rate=float(rate),
        weight_decay=float(decay),
        batch_size=batch,
        # a short run has no time to lose at low rates; a long one over few rows must not overfit
        hold_fraction=0.5 * min(1.0, SHORT_RUN / max(1, epochs)),
        constant=constant,
        precision=training.start.config.precision,
        warmup_steps=20 if constant else 200,  # calls of partial_fit may be few and small
    )


def patience_of(asked: int | str, steps_per_epoch: int) -> Patience:
    """The patience of early stopping: as asked, or what "auto" becomes."""
    if isinstance(asked, str):
        usual = max(IDLE_EPOCHS, math.ceil(PATIENT_STEPS / steps_per_epoch))
        return Patience(IDLE_EPOCHS, OVERFIT_EPOCHS, usual)
    return Patience(asked, asked, asked)


def run_budget(
    params: RunParameters, training: Training[Any], batch_size: int, started: float
) -> Budget:
    """Of epochs and, if given, of seconds from ``started`` on (of ``time.monotonic``)."""
    limit = params.max_time
    seconds = parse_time(limit) if isinstance(limit, str) else limit
    epochs = epochs_of(params.max_epochs, len(training.rows), batch_size)
    return Budget(epochs, None if seconds is None else float(seconds), started)


class Run:
    """One run of the loop, from the start or a checkpoint to the best model.

    Parameters
    ----------
    params : the estimator's parameters
    training : what is trained; the model's weights change in place
    budget, config : of the loop
    marks : those of the data, by which a checkpoint recognizes them; None: partial_fit, which
        writes no checkpoint and keeps the last weights
    content : the content of a model file, from a state
    group : the processes that train together
    after : the epochs in the history before this run
    """

    def __init__(
        self,
        params: RunParameters,
        training: Training[Any],
        budget: Budget,
        config: TrainConfig,
        marks: Marks | None,
        content: Callable[[Any], Content],
        group: Group,
        reason: str = "the budget was used",
        after: int = 0,
    ) -> None:
        self.params, self.training, self.budget, self.config = params, training, budget, config
        self.reason, self.after, self.group = reason, after, group
        self.interrupted = False
        self.diverged_epoch = 0  # that ended in a loss that is not finite, if one did
        objective = training.start.objective
        modules = {"model": training.start.model, "objective": objective}
        first = group.rank == 0  # of several processes, the one that reports
        n_rows = len(training.rows)
        steps_per_epoch = n_batches(n_rows, config.batch_size)
        group.check_batches(n_rows, steps_per_epoch, config.batch_size)
        patience = patience_of(params.n_iter_no_change, steps_per_epoch)
        group.broadcast_(t for module in modules.values() for t in module.state_dict().values())
        self.listeners = Listeners(params.listeners if first else None)
        self.monitor = Monitor(
            modules,
            lambda: selection_score(training, group, config.batch_size),
            patience.least if params.early_stopping else None,
            params.verbose if first else False,
            marks is not None and objective.settles,
            self._notify,
            objective.in_words,
            math.ceil(objective.settled * budget.max_epochs),
            lambda: self.cooldown.ends(),
        )
        self.cooldown = Cooldown(training.state, self.monitor, patience)
        start = training.start
        self.second_start = SecondStart(
            training.state,
            self.monitor,
            lambda: start_over(start.model.f, start.model.g, start.seed + 1),
            patience.idle if params.early_stopping else None,
        )
        self.checkpoint = CheckpointWriter(
            params, training, self.monitor, marks, content if first else None
        )

    def _notify(self, entry: dict[str, float]) -> bool:
        """Pass an epoch to the listeners; whether any of them asks to stop."""
        if self.monitor.diverged and self.training.state.lr_backoff == 1.0:
            return False  # the epoch will be undone
        asked = self.listeners.on_epoch({**entry, "epoch": entry["epoch"] + self.after})
        return self.group.all_reduce_stop(0.0, asked)[1]

    def go(self) -> Monitor:
        """Train within the budget; the model ends as the best one seen (or as the last)."""
        training, monitor, stop = self.training, self.monitor, Interrupt()
        before = len(training.saved[1]["history"]) if training.saved else self.after
        listening = self.params.listeners is not None
        about = describe_run(self.params, training, before) if listening else {}
        with self.listeners.following(about) as summary:
            with catch_interrupts(stop, on_terminate=self.params.checkpoint is not None):
                self._start_and_train(stop)
            stopped = stop.reason if self.interrupted else ""
            monitor.finish(stopped or self.cooldown.reason or self.reason)
            for optimizer in training.state.optimizers.values():
                optimizer.zero_grad()  # frees their memory
            if not stopped:
                self.checkpoint.write()
            summary.update(monitor.summary())
        with self.group.rank_zero_only():
            self._warn(stopped)
        return monitor

    def _start_and_train(self, stop: Interrupt) -> None:
        training, monitor, state = self.training, self.monitor, self.training.state
        start = training.start
        state.global_draws = start.config.architecture == "own"
        state.optimizers = state.optimizers or make_optimizers(
            start.objective.players(start.model),
            self.config,
            lr_multipliers(start.model, start.objective),
        )
        start.model.train()
        monitor.started = time.monotonic()
        with _private_randomness(state, self.group.rank_seed(start.seed)):
            if training.saved is not None:
                load_from_file(
                    training.saved,
                    state,
                    monitor,
                    Path(self.params.checkpoint or ""),
                    n_batches(len(training.rows), self.config.batch_size),
                    self.budget.max_epochs,
                )
                self.budget = self.budget.from_now()
                self.budget.started -= training.saved[1]["seconds"]
                if self.group.rank > 0:  # the file holds the generator of rank 0
                    state.rng.manual_seed(self.group.rank_seed(start.seed + state.step))
            else:
                state.begin(self.budget.max_epochs)
                state.trial.phase = "first" if training.at_pca and monitor.keep_best else "over"
                monitor.start()
                self.budget = self.budget.from_now()
            try:
                self._train(stop)
            except KeyboardInterrupt:
                if self.group.size > 1:
                    raise  # the other processes are at another step: they cannot end together
                stop.reason, self.interrupted = stop.reason or "interrupted", True

    def _train(self, stop: Interrupt) -> None:
        """The loop; after a loss that is not finite once more from before it, at a lower rate."""
        training, state, monitor = self.training, self.training.state, self.monitor
        start = training.start
        good = state_dict(state, monitor)
        while not monitor.stop_reason:
            for record in train(
                start.model,
                start.objective,
                training.rows,
                self.config,
                self.budget,
                state,
                self.group,
            ):
                ended = monitor.update(record)
                if ended and monitor.diverged and state.lr_backoff == 1.0:
                    self.diverged_epoch = len(monitor.history)
                    load_state_dict(good, state, monitor)
                    state.lr_backoff = LR_BACKOFF
                    break
                self.second_start.update(record)
                self.checkpoint.consider(record)
                # a signal may come while the processes agree: then it counts after the next step
                reason = self.group.all_reduce_reason(stop.reason)
                if reason:
                    stop.reason, self.interrupted = reason, True
                    self.checkpoint.write()
                if ended or reason:
                    return
                if record.end_of_epoch:
                    good = state_dict(state, monitor)
            else:
                return

    def _warn(self, stopped: str) -> None:
        from sklearn.exceptions import ConvergenceWarning

        monitor, written = self.monitor, self.checkpoint.written
        where = f" {written} holds the run: go on with resume=True (--resume)." if written else ""
        if stopped == "terminated":
            warnings.warn(f"Training was ended by SIGTERM.{where}", stacklevel=4)
            raise SystemExit(128 + signal.SIGTERM)
        if stopped:
            warnings.warn(
                f"Training was interrupted; the best model so far is kept.{where}", stacklevel=4
            )
        elif "no longer a number" in monitor.stop_reason:
            # where the budget ended in that epoch there was no time to try again
            again = self.training.state.lr_backoff < 1.0
            tried = f", also with {LR_BACKOFF} times the step size" if again else ""
            warnings.warn(
                f"Training stopped because {monitor.stop_reason}{tried}; the best model before it "
                f"(epoch {monitor.best_epoch}) is kept. Lower learning_rate, or look for extreme "
                "rows in X.",
                ConvergenceWarning,
                stacklevel=4,
            )
        elif self.diverged_epoch:
            warnings.warn(
                f"The loss was no longer a number in epoch {self.diverged_epoch}: training went "
                f"back to the epoch before and on with {LR_BACKOFF} times the step size. Lower "
                "learning_rate.",
                ConvergenceWarning,
                stacklevel=4,
            )


def _private_randomness(state: TrainState, seed: int) -> AbstractContextManager[None]:
    """Our parts draw from a private generator; the user's own (an nn.Dropout) may not."""
    return _forked(seed) if state.global_draws else nullcontext()


@contextmanager
def _forked(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def selection_score(training: Training[Any], group: Group, batch_size: int) -> float:
    """Nats per validation row, with the same draws every time and the weights of the end.

    ``batch_size`` is that of training, for terms that compare the rows of a batch.
    """
    start = training.start
    model, objective = start.model, start.objective
    rng = torch.Generator(training.state.rng.device).manual_seed(group.rank_seed(start.seed))
    n_rows = len(training.validation)

    def score(x: Tensor) -> Tensor:
        trace = model(x, Clock(progress=1.0, n_rows=len(training.rows)), rng)
        objective(model, trace)
        found: Tensor = objective.score(trace)
        return found

    rows = training.validation.part(group.share)
    compared = max(1, batch_size // group.size)  # of this process
    batch = compared if objective.compares_rows else inference_batch(rows.shape)
    group.broadcast_buffers([model, objective])
    model.eval()  # the user's own layers may behave otherwise while training
    try:
        return average_score(score, rows.in_order(batch), n_rows, group)
    finally:
        model.train()


def history_of(start: History, monitor: Monitor) -> History:
    """How the run went so far."""
    return replace(
        start,
        epochs=monitor.history,
        scores=monitor.scores,
        best_epoch=monitor.best_epoch,
        stop_reason=monitor.stop_reason,
        seconds=monitor.seconds,
    )


# ---------------------------------------------------------------------- checkpoints


class CheckpointWriter:
    """Writes the checkpoint of a run when it is due; ``content=None`` (not rank 0) writes none."""

    def __init__(
        self,
        params: RunParameters,
        training: Training[Any],
        monitor: Monitor,
        marks: Marks | None,
        content: Callable[[Any], Content] | None,
    ) -> None:
        self.path = None
        if marks is not None and content is not None and params.checkpoint is not None:
            self.path = Path(params.checkpoint)
        every = params.checkpoint_every
        self.epochs = None if isinstance(every, str) else int(every)
        self.pause = parse_time(every) or 0.0
        self.training, self.monitor, self.content = training, monitor, content
        self.marks = marks
        self.written: Path | None = None  # where the run is, once it has been written
        self._last_write = time.monotonic()
        self._failed = False

    def consider(self, record: StepRecord) -> None:
        """Write, if it is time."""
        if self.path is None:
            return
        if self.epochs is not None:
            due = record.end_of_epoch and self.training.state.epoch % self.epochs == 0
        else:
            due = time.monotonic() - self._last_write >= self.pause
        if due:
            self.write()

    def write(self) -> None:
        """Write now; if that fails, warn, keep the old checkpoint and go on training."""
        # a loss that is not finite is found at the end of the epoch; never go on from one
        finite = all(bool(total.isfinite()) for total in self.monitor.sums.values())
        if self.path is None or self.content is None or not finite:
            return
        saved = state_dict(self.training.state, self.monitor)
        tensors, header = self._best_so_far(saved, self.content)
        tensors |= {f"training.{name}": tensor for name, tensor in saved[0].items()}
        header["training"] = {
            "numbers": saved[1],
            "seed": self.training.start.seed,
            "mark": self.marks,
            "threads": torch.get_num_threads(),
        }
        try:
            write_file(self.path, tensors, header, overwrite=True)
            self.written = self.path
        except FileError as error:
            if not self._failed:
                warnings.warn(f"{error} Training goes on without it.", stacklevel=2)
            self._failed = True
        self._last_write = time.monotonic()

    def _best_so_far(self, saved: Saved, content: Callable[[Any], Content]) -> Content:
        """The model file of the best weights, while the last ones wait in ``saved``."""
        start, monitor = self.training.start, self.monitor
        for name, module in monitor.modules.items():
            module.load_state_dict(monitor.best[name])
            module.eval()
        try:
            best = replace(start, history=history_of(start.history, monitor), data=None)
            tensors, header = content(best)
            # copies: the module's own tensors are about to hold the last weights again
            return {name: tensor.clone() for name, tensor in tensors.items()}, header
        finally:
            for name, module in monitor.modules.items():
                prefix = f"last.{name}."
                last = {n[len(prefix) :]: t for n, t in saved[0].items() if n.startswith(prefix)}
                module.load_state_dict(last)
                module.train()


def find_checkpoint(params: RunParameters) -> Path | None:
    """The checkpoint to go on from, if there is one and the parameters ask to resume."""
    if params.checkpoint is None:
        if params.resume:
            raise ParameterError(
                "resume=True goes on from a checkpoint; say where it is with checkpoint=..."
            )
        return None
    path = check_output(params.checkpoint, [".checkpoint"], overwrite=True)
    if not path.exists():
        return None
    if not params.resume:
        raise FileError(
            f"{path} holds a run already; go on with it (resume=True, --resume), or remove it to "
            "start afresh."
        )
    return path


def run_in_checkpoint(
    path: Path,
    tensors: Tensors,
    run: Mapping[str, Any],
    header: Mapping[str, Any],
    fitted: FittedState,
    data: FitData[Any],
) -> tuple[Saved, int]:
    """The state of the run in a checkpoint, and its seed.

    ``run`` is the part of the header about the run; ``fitted`` the model in the same file.

    Raises
    ------
    InputError
        The data differ from those of the run; the file stays as it is.
    """
    same_layout = fitted.layout == (None if data.spec is None else data.spec.layout)
    # a checkpoint of an older narrows has no mark of classes
    before = [*run["mark"], *[None] * (2 - len(run["mark"]))]
    for name, then, given in zip(("X", "X_val", "y"), before, data.marks, strict=False):
        if not (same_layout and same_mark(then, given)):
            raise InputError(
                f"{path} is a run on other data than the {name} given; give the same {name}, or "
                "remove the file to start afresh."
            )
        if then and given and then["streamed"] != given["streamed"]:
            raise InputError(
                f"{path} is a run on an {name} that was "
                f"{'streamed' if then['streamed'] else 'loaded'}, which decides the order of "
                f"rows; go on with in_memory={not then['streamed']}."
            )
    for name, then, now in (
        ("torch", header["versions"].get("torch"), torch.__version__),
        ("threads", run["threads"], torch.get_num_threads()),
    ):
        if then != now:
            warnings.warn(
                f"The run was interrupted with {_version(name, then)} and goes on with "
                f"{_version(name, now)}: its numbers may differ in their last bits.",
                stacklevel=5,
            )
    return (without_prefix("training.", tensors), run["numbers"]), run["seed"]


def _version(name: str, value: object) -> str:
    return f"{value} threads" if name == "threads" else f"{name} {value}"


def other_parameters(params: RunParameters, header: Mapping[str, Any]) -> str:
    """How the model of a header was made otherwise than ``params`` would; empty if it was not."""
    if header.get("class") != type(params).__name__:
        return f"was made by {header.get('class')}, not by {type(params).__name__}"
    before = header.get("parameters", {})
    now = {item.name: plain(vars(params)[item.name]) for item in fields(params)}
    if not isinstance(now["random_state"], int):
        del now["random_state"]  # the run's own seed is in the file
    names = [n for n in names_in_scope(params, MODEL, MODULE, FIT) if n in before and n in now]
    # one width may be written as 32, (32,) or an array
    differ = [n for n in names if _as_list(now[n]) != _as_list(before[n])]
    changed = [f"{n}={before[n]!r}, not {now[n]!r}" for n in differ]
    return f"was made with {', '.join(changed)}" if changed else ""


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# ---------------------------------------------------------------------- worker processes


def wants_workers(params: RunParameters) -> bool:
    """Whether this process is to start others, rather than to train in itself."""
    return params.n_devices > 1 and current_group().size == 1 and not launched()


def refuse_workers(params: RunParameters) -> None:
    """Refuse to start workers for one pass over the data: that takes longer than the pass."""
    if wants_workers(params):
        raise ParameterError(
            f"partial_fit trains in the process that calls it, but n_devices is "
            f"{params.n_devices}; set it to 1, or start the script with torchrun."
        )


def refuse_different_checkpoints(found: Path | None, group: Group) -> None:
    """Refuse a checkpoint that only some processes see: the others would start afresh."""
    if len({path is None for path in group.all_gather(found)}) > 1:
        raise ParameterError(
            "Only some processes of this run see the checkpoint to go on from; put it where all of "
            "them do."
        )


def check_workers_device(asked: str, n: int) -> None:
    """Refuse a device of which there are not ``n``."""
    if asked.startswith("cuda:"):
        raise ParameterError(
            f"device={asked!r} is one device, but n_devices is {n}; give device='cuda' and choose "
            "which with CUDA_VISIBLE_DEVICES."
        )
    wanted = asked == "cuda" or (asked == "auto" and torch.cuda.is_available())
    if wanted and torch.cuda.device_count() < n:
        refuse_devices(n)
