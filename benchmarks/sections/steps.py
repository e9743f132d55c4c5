"""Training rows per second: the same network, every contender, interleaved rounds."""

from __future__ import annotations

from typing import Any

from contenders import ENTRIES
from records import Book, footnote, groups, median, peer, ratio, seeds, show, table

KEYS = ("data", "network", "latent", "epochs", "rows", "device_name", "name")


def measure(options: Any, book: Book) -> None:
    """A B C ... A B C ...: a round is one seed, so that a slow minute affects all contenders."""
    device = None if options.device == "cpu" else options.device
    names = [n for n in options.names or ENTRIES if device is None or ENTRIES[n].on_gpu]
    for network in options.networks or ("dense", "conv"):
        for seed in options.seeds:
            for name in names:
                if network in ENTRIES[name].networks and name != "pca":
                    wishes = {"network": network, "epochs": options.epochs, "seed": seed}
                    wishes |= {"latent": 32, "rows": options.rows, "device": device}
                    denoises = network == "denoiser"
                    wishes["data"] = "textures" if denoises else options.data[0]
                    book.add(peer(name, **wishes))


def write(book: Book) -> None:
    """Medians over the seeds; ratios are medians of the ratios within a round."""
    rows = book.rows(*KEYS)
    # a contender's last run may be older than the plain loop's: it is compared with its own round's
    plain = groups(book.rows(*KEYS, "run"), *KEYS)
    lines = []
    for setting_key, setting in groups(rows, *KEYS[:-1]).items():
        data, network, latent, epochs, n, device = setting_key
        by_name = groups(setting, "name")
        base = plain.get((*setting_key, "plain"), [])
        for (name,), mine in by_name.items():
            lines.append(
                [
                    f"{data}{'' if n is None else f' ({n} rows)'}, {network} {latent}"
                    + f", {device}" * bool(device),
                    *(name, str(epochs), seeds(len(mine))),
                    show(median(mine, "samples_per_s"), ",.0f"),
                    show(ratio(mine, "samples_per_s", base), ".2f"),
                    show(median(mine, "samples_per_s_later"), ",.0f"),
                    show(ratio(mine, "samples_per_s_later", base), ".2f"),
                    show(median(mine, "seconds"), ".2f"),
                    show(median(mine, "mse"), ".5f"),
                    show(median(mine, "import_seconds"), ".1f"),
                    show(median(mine, "peak_rss_mib"), ".0f"),
                ]
            )
    head = "network|contender|epochs|seeds|rows/s|ratio to plain|rows/s after epoch 1|ratio"
    head += "|seconds|test error|import s|peak MiB"
    book.write(
        "# Training: rows a second\n\nSame layers, batches of 128 (`narrows`: its own defaults, on "
        "the nine tenths of the rows it does not hold out). The first epoch holds compiling and "
        "warming up. `seconds`: the training; of narrows the whole fit, with checks, scaling and "
        "PCA. MLPRegressor and PyOD have ReLU on the code and no sigmoid. `good` is a careful "
        "hand-written loop, `good-512` the same with batches of 512.\n\n"
        + table(head.split("|"), lines)
        + footnote(rows)
    )
