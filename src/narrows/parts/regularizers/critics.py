"""R with a network of its own that learns to tell two kinds of things apart: a second player.

Each critic answers one number, the log odds that what it sees is of the first kind. The isolation
of the players does not rest on what is written here: the loop asks each loss for the gradients of
its own player alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows._types import Clock, Sizes, Trace
from narrows.exceptions import ParameterError
from narrows.parts.bounds import Bound
from narrows.parts.latents.base import Latent
from narrows.parts.likelihoods.base import Likelihood
from narrows.parts.likelihoods.discrete import Categorical, Mixed
from narrows.parts.model import Model
from narrows.parts.networks.architectures import NetworkOptions, conv, dense, make, mlp, zero_last
from narrows.parts.regularizers.base import Regularizer


def told_apart(first: Tensor, second: Tensor) -> Tensor:
    """A critic's own loss, from its answers to both kinds; 2 log 2 where it cannot tell."""
    return F.softplus(-first).mean() + F.softplus(second).mean()


class CodeCritic(Regularizer):
    """−E log C(z): the codes should look like draws of the prior to C, who learns to tell.

    C's own loss is −E_p log C(z) − E_q log(1 − C(z)). f's is the one that does not saturate where C
    is sure (Goodfellow et al., arXiv:1406.2661, section 3), in place of E log(1 − C(z)).

    Source: Makhzani et al., "Adversarial autoencoders", arXiv:1511.05644.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the critic's layers.
    """

    needs, settles = frozenset({"prior", "smooth"}), False
    critic: nn.Sequential

    def __init__(self, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        self.hidden = tuple(hidden)

    def extra_repr(self) -> str:
        return f"hidden={self.hidden}"

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        self.critic = mlp([sizes.latent_dim, *self.hidden, 1], rng)
        zero_last(self.critic)  # a critic who knows nothing moves nobody

    def forward(self, model: Any, trace: Trace) -> Tensor:
        return F.softplus(-self.critic(_codes(trace))).mean()

    def own_loss(self, model: Any, trace: Trace) -> Tensor:
        """What the critic minimises."""
        z = _codes(trace).detach()
        drawn = model.p.sample(len(z), trace.rng, 1.0, model)
        return told_apart(self.critic(drawn.detach()), self.critic(z))


class FactorCritic(CodeCritic):
    """TC = KL(q(z) ‖ Π_j q(z_j)) ≈ E_q log C(z) / (1 − C(z)), the density ratio that C learns.

    C's own loss is −E log C(z) − E log(1 − C(z̄)), where z̄ are codes of which every number was
    moved to another row. All rows take part, and each number is moved by an order of its own, all
    orders equally likely: both kinds have the same values in every column, and C can learn
    from nothing but how they go together. (The paper takes z and z̄ from two halves of a batch. By
    chance one pair in n stays together here, by which the estimate cannot exceed log n.)

    Source: Kim & Mnih, "Disentangling by factorising", arXiv:1802.05983.
    """

    needs, settles = frozenset({"density", "smooth"}), True

    def forward(self, model: Any, trace: Trace) -> Tensor:
        answer: Tensor = self.critic(_codes(trace)).mean()
        return answer

    def own_loss(self, model: Any, trace: Trace) -> Tensor:
        z = _codes(trace).detach()
        order = torch.rand(z.shape, generator=trace.rng, device=z.device).argsort(0)
        return told_apart(self.critic(z), self.critic(z.gather(0, order)))


def _codes(trace: Trace) -> Tensor:
    return trace.z.flatten(0, 1).float()


class WithDraws(Model):
    """The usual composition that also decodes draws of the prior, for a critic to see.

    Raises
    ------
    ParameterError
        Reconstructions of D are classes, which have no gradient that the critic could give g.
    """

    def __init__(self, f: nn.Module, g: nn.Module, q: Latent, D: Likelihood, **more: Any) -> None:
        if isinstance(D, Categorical | Mixed):
            raise ParameterError(
                f"A critic of x asks for reconstructions that change by small steps, but those of "
                f"the distance {type(D).__name__} are classes; choose another distance."
            )
        super().__init__(f, g, q, D, **more)

    def forward(self, x: Tensor, clock: Clock, rng: Generator, K: int | None = None) -> Trace:
        trace = super().forward(x, clock, rng, K)
        drawn = self._decoded(self.sample(len(x), rng)[None])
        for name, output in (("made", trace.output), ("drawn", drawn)):
            made = self.D.mean(output[0])
            # what nobody observed is filled in alike, so that it tells nothing
            seen = made if trace.mask is None else torch.where(trace.mask > 0, made, trace.x)
            trace.nodes[0].extras[name] = seen
        return trace


class ImageCritic(Regularizer):
    """−½ E log C(g(z)) − ½ E log C(g(z')), z of the rows, z' of the prior: both should look real.

    C sees x itself, by convolutions where x is an image or a signal. C's own loss is −E log C(x)
    − ½ E log(1 − C(g(z))) − ½ E log(1 − C(g(z'))); its last hidden layer gives `FeatureBound` the
    features that x is compared by. Stands beside `WithDraws`.

    Source: Larsen et al., "Autoencoding beyond pixels using a learned similarity metric",
    arXiv:1512.09300.
    """

    needs, settles = frozenset({"prior", "smooth"}), False
    critic: nn.Sequential

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        network = conv if len(sizes.shape) > 1 else dense
        options = NetworkOptions(sizes.shape, sizes.latent_dim, numbers=1)
        self.critic = make(lambda: network(options)[0], rng)
        zero_last(self.critic)

    def look(self, trace: Trace) -> tuple[Tensor, Tensor]:
        """Features (3, B, ...) and answers (3, B) for the rows, what is made of them, and draws.

        Everybody who asks for a trace gets the same: one pass of the critic a step.
        """
        extras = trace.nodes[0].extras
        if "features" not in extras:
            rows = torch.cat([trace.x, extras["made"], extras["drawn"]])
            features = self.critic[:-1](rows)
            extras["features"] = features.unflatten(0, (3, -1))
            extras["answers"] = self.critic[-1](features).view(3, -1)
        return extras["features"], extras["answers"]

    def forward(self, model: Any, trace: Trace) -> Tensor:
        return F.softplus(-self.look(trace)[1][1:]).mean()

    def own_loss(self, model: Any, trace: Trace) -> Tensor:
        """What the critic minimises."""
        answers = self.look(trace)[1]
        return told_apart(answers[0], answers[1:])


class FeatureBound(Bound):
    """½ ‖φ(x) − φ(g(z))‖², φ a critic's last hidden layer: for f and q as it is, for g times γ.

    That is −log N(φ(x); φ(g(z)), I). It does not train φ. What is reported of validation is the
    distance D of x itself, since φ moves (Larsen et al., arXiv:1512.09300).
    """

    has_encoder = True

    def __init__(self, critic: ImageCritic, gamma: float = 1.0) -> None:
        super().__init__()
        self.gamma = gamma
        # in a tuple, so that the critic is not registered (and saved, and owned) a second time
        self._critic = (critic,)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma:g}"

    def encoder(self, trace: Trace) -> Tensor:
        real, made, _ = self._critic[0].look(trace)[0]
        nats: Tensor = 0.5 * (real - made).square().sum(-1).mean()
        return nats

    def forward(self, trace: Trace) -> Tensor:
        return self.gamma * self.encoder(trace)

    def score(self, trace: Trace) -> Tensor:
        return trace.distance.mean()
