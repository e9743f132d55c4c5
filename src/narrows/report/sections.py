"""The page's pictures with their words, in the order an editor would print them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from narrows.report import canvas, figures, words
from narrows.report import page_tables as tables
from narrows.report.canvas import Picture
from narrows.report.manifold import code_map as flat_view
from narrows.report.manifold import decoded_grid
from narrows.report.page import Section

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from narrows.report.content import Content
    from narrows.report.manifold import CodeMap

CAPTIONS = {
    "Typical": "Typical: error around the median.",
    "Best": "Best: smallest errors, smallest first.",
    "Worst": "Worst: largest errors, largest first.",
}


def sections(content: Content, commands: list[str]) -> list[Section]:
    """Every section that this model and these rows have."""
    makers: list[Callable[[Content], Section]] = [samples]
    if hasattr(content.est, "corrupt"):
        makers.append(denoising)
    makers += [code_map, grid, interpolations]
    if hasattr(content.est, "sample"):
        makers.append(generated)
    makers += [training, errors, tables.comparison, tables.cost, tables.model]
    return [*(make(content) for make in makers), tables.how(commands)]


def samples(content: Content) -> Section:
    """Original, compressed, restored."""
    look, k = content.look, words.count(content.est.latent_dim_, "number")
    lead = (
        f"Each {look.noun}, its code of {k} (a cell for each, in standard deviations from its "
        "mean), and what the decoder makes of it. "
    )
    if content.est.pca_ is not None:
        lead += "PCA's reconstruction from as many numbers stands beside it. "
    named = "its label and " if content.labels else ""
    lead += f"The figure above is {named}the mean squared error per element. {look.note}"
    pictures = []
    for kind, rows in content.numbers.ranking.items():
        alt = (
            f"{kind} {look.noun}s: original, code, reconstruction and PCA's reconstruction, of "
            f"the rows {', '.join(map(str, rows))}."
        )
        figure = look.gallery(content.samples(rows))
        pictures.append(Picture(f"samples-{kind.lower()}", figure, alt, CAPTIONS[kind]))
    return Section("samples", "Original, compressed, restored", lead.strip(), pictures)


def denoising(content: Content) -> Section:
    """Noisy, denoised, clean."""
    look, found = content.look, content.numbers.denoising
    lead = f"Fresh noise of the kind the model was trained on ({content.est.info()['parts']['c']})."
    if found is not None:
        pca = "" if found.pca is None else f", PCA's {words.figure(found.pca)}"
        lead += (
            f" The noisy {look.noun}s' mean squared distance from the clean ones is "
            f"{words.figure(found.noisy)}, the denoised ones' {words.figure(found.denoised)}{pca} "
            f"(as a share of the data's variance, over {words.count(found.n_rows, 'row')})."
        )
    each = look.n_noisy
    shown = content.denoised(2 * each)
    pictures = []
    for part in range(-(-len(shown["clean"]) // each)):
        some = {name: rows[part * each : (part + 1) * each] for name, rows in shown.items()}
        alt = f"Some {look.noun}s: {', '.join(some)}."
        pictures.append(Picture(f"denoising-{part + 1}", look.rows(some), alt))
    return Section("denoising", "Noisy, denoised, clean", lead, pictures)


def code_map(content: Content) -> Section:
    """The codes on a map, PCA's beside it."""
    rows = content.map_rows
    labels = None if content.labels is None else content.labels[rows]
    frame = _frame(content)
    figure = figures.code_map(
        content.view.points(content.codes), labels, _directions(content.view), _name(content), frame
    )
    alt = f"The codes of {words.count(len(rows), 'row')}, a point each."
    caption = "" if frame is None else "The dashed frame is what the grid below decodes."
    pictures = [Picture("map", figure, alt, caption)]
    Z = content.pca_codes
    if Z is not None:
        view = flat_view(Z)
        figure = figures.code_map(view.points(Z), labels, _directions(view), "PCA")
        pictures.append(Picture("map-pca", figure, "The same rows' codes by PCA."))
    return Section("map", "The map of codes", _map_lead(content), pictures)


def _map_lead(content: Content) -> str:
    k, shown = content.est.latent_dim_, len(content.map_rows)
    if k <= 2:
        lead = f"The code is {words.count(k, 'number')}, so this is all the decoder knows."
    else:
        held = words.percent(float(content.view.shares.sum()))
        lead = (
            f"A code of {k} numbers seen from its two leading principal directions, which hold "
            f"{held} of its variance."
        )
    if content.labels is not None:
        lead += " Colours are the labels; no model was shown them."
    if shown < len(content.X):
        lead += f" Drawn: {shown:,} random rows of {len(content.X):,}."
    return lead


def _directions(view: CodeMap) -> list[str]:
    if view.exact:
        return [f"code {i + 1}" for i in range(len(view.origin))]
    return [f"direction {i + 1} ({words.percent(share)})" for i, share in enumerate(view.shares)]


def _frame(content: Content) -> NDArray[np.float64] | None:
    grid = content.grid
    if not len(grid.y):
        return None
    return np.array([[grid.x[0], grid.x[-1]], [grid.y[-1], grid.y[0]]])


def grid(content: Content) -> Section:
    """The decoded points under the map."""
    look, found = content.look, content.grid
    lead = (
        "What the decoder makes of points under the map, at the codes' own quantiles (2 % to "
        f"98 %), so that the grid is fine where the {look.noun}s are many. Some points lie "
        "where no data is."
    )
    if not content.view.exact:
        lead += " All other directions of the code are held at their mean."
    size = " × ".join(map(str, found.decoded.shape[:2]))
    pictures = [Picture("grid", look.grid(found, _name(content), canvas.MODEL),
                        f"A grid of {size} decoded points.")]  # fmt: skip
    if content.pca_codes is not None:
        plain = decoded_grid(content.est.pca_, content.pca_codes, size=look.grid_size)
        pictures.append(Picture("grid-pca", look.grid(plain, "PCA", canvas.PCA),
                                "The same grid under PCA's map."))  # fmt: skip
    return Section("grid", "Under the map", lead, pictures)


def interpolations(content: Content) -> Section:
    """Straight walks between codes."""
    look = content.look
    walks, starts, ends = content.walks()
    lead = (
        f"Straight walks from the code of one {look.noun} to that of another, decoded at "
        f"{walks.shape[1]} even steps; {look.walk_note}"
    )
    drawn = look.walks(walks, starts, ends)
    wide = len(drawn) < len(walks) or hasattr(look, "pixels")
    alt = f"From one {look.noun} to another, decoded on the way."
    pictures = [
        Picture(f"interpolations-{i + 1}", figure, alt, wide=wide) for i, figure in enumerate(drawn)
    ]
    return Section("interpolations", "From one to another", lead, pictures)


def generated(content: Content) -> Section:
    """Samples of the model, beside data and what a normal distribution in PCA's plane gives."""
    fitted = content.est.info()["parts"].get("sampler")
    lead = "Decoded draws from the model's prior, beside real data"
    if fitted is not None:
        lead = f"Decoded draws of codes ({fitted}), beside real data"
    if content.pca_codes is not None:
        lead += ", and beside the simple method: a normal distribution on PCA's codes, decoded"
    titles = {
        "data": ("Real data", canvas.INK),
        "model": (f"Drawn from the {_name(content)}", canvas.MODEL),
        "PCA": ("Drawn from PCA", canvas.PCA),
    }
    pictures = []
    for name, events in content.generated(36).items():
        title, color = titles[name]
        alt = f"{title}: {words.count(len(events), content.look.noun)}."
        figure = content.look.batch(events, title, color)
        pictures.append(Picture(f"generated-{name.lower()}", figure, alt))
    return Section("generated", "New samples", f"{lead}.", pictures)


def training(content: Content) -> Section:
    """The loss curves."""
    est = content.est
    lead = f"{words.count(est.n_iter_, 'epoch')}; the weights of epoch {est.best_epoch_} were kept"
    lead += " (0 is before training)." if est.best_epoch_ == 0 else "."
    lead += f" Stopped: {est.stop_reason_.rstrip('.')}." if est.stop_reason_ else ""
    drawn = figures.training(est.history_, list(est.validation_curve_), est.best_epoch_)
    alts = {
        "loss": "The training loss and its terms over the epochs.",
        "validation": "The validation score over the epochs.",
    }
    pictures = [Picture(name, figure, alts[name]) for name, figure in drawn.items()]
    return Section("training", "Training", lead, pictures)


def errors(content: Content) -> Section:
    """How errors are spread over the rows."""
    n = content.numbers
    means = {m.name: m.mse for m in (n.model, n.pca) if m is not None}
    lead = "A mean hides its tail: how many rows have which error"
    alt = "Histogram of the rows' mean squared errors. " + ", ".join(
        f"{name}: mean {words.figure(mean)}" for name, mean in means.items()
    )
    pictures = [Picture("errors", figures.histogram(n.histogram, means), f"{alt}.")]
    if n.pca is not None:
        rows = content.map_rows
        lead += ", and each row's error beside its error by PCA"
        figure = figures.against(n.model.errors[rows], n.pca.errors[rows], n.histogram.logarithmic)
        alt = "Each row's error by the model over its error by PCA."
        pictures.append(Picture("errors-rows", figure, alt))
    return Section("errors", "The errors, row by row", f"{lead}.", pictures)


def _name(content: Content) -> str:
    return type(content.est).__name__
