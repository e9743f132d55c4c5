"""R with a critic: a network that learns to distinguish two kinds of input, a second player.

A critic outputs one number, the log odds that its input is of the first kind. The loop computes the
gradients of each player's loss for its own parameters only, so nothing here stops gradients for
that reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from narrows._types import Clock, Sizes, Trace
from narrows.exceptions import ParameterError
from narrows.parts import Composition
from narrows.parts.bounds import Bound
from narrows.parts.latents.base import Latent
from narrows.parts.likelihoods.base import Likelihood
from narrows.parts.likelihoods.discrete import Categorical, Mixed
from narrows.parts.model import Model
from narrows.parts.networks.architectures import NetworkOptions, conv, create, dense, mlp, zero_last
from narrows.parts.regularizers.base import Regularizer


def critic_loss(first: Tensor, second: Tensor) -> Tensor:
    """A critic's loss, from its log odds for both kinds; 2 log 2 if it cannot distinguish them."""
    return F.softplus(-first).mean() + F.softplus(second).mean()


class CodeCritic(Regularizer):
    """−E_q log C(z): a critic C should take codes for draws of the prior.

    C's own loss is −E_p log C(z) − E_q log(1 − C(z)). f's is the non-saturating one (Goodfellow et
    al., arXiv:1406.2661, section 3): E_q log(1 − C(z)) has almost no gradient where C is certain.

    Source: Makhzani et al., "Adversarial autoencoders", arXiv:1511.05644.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the critic's layers.
    """

    needs, settles, has_critic = frozenset({"prior", "smooth"}), False, True

    def __init__(self, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        self.hidden = tuple(hidden)

    def extra_repr(self) -> str:
        return f"hidden={self.hidden}"

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        self.critic = mlp([sizes.latent_dim, *self.hidden, 1], rng)
        zero_last(self.critic)  # no gradient reaches the encoder at step 0

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        return F.softplus(-self.critic(_codes(trace))).mean()

    def own_loss(self, model: Composition, trace: Trace) -> Tensor:
        z = _codes(trace).detach()
        drawn = model.p.sample(len(z), trace.rng, 1.0, model)
        return critic_loss(self.critic(drawn.detach()), self.critic(z))


class FactorCritic(CodeCritic):
    """TC = KL(q(z) ‖ Π_j q(z_j)) ≈ E_q log C(z) / (1 − C(z)), the density ratio that C learns.

    C's own loss is −E log C(z) − E log(1 − C(z̄)). The z̄ are the codes of the batch with every
    number permuted over all rows, independently and uniformly: both kinds have the same values in
    every column, so that C can only learn their dependence. (The paper takes z and z̄ from two
    halves of a batch. Here a fraction 1/n of the pairs stays together by chance, so the estimate
    cannot exceed log n.)

    Source: Kim & Mnih, "Disentangling by factorising", arXiv:1802.05983.
    """

    needs, settles = frozenset({"density", "smooth"}), True

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        log_odds: Tensor = self.critic(_codes(trace))
        return log_odds.mean()

    def own_loss(self, model: Composition, trace: Trace) -> Tensor:
        z = _codes(trace).detach()
        order = torch.rand(z.shape, generator=trace.rng, device=z.device).argsort(0)
        return critic_loss(self.critic(z), self.critic(z.gather(0, order)))


def _codes(trace: Trace) -> Tensor:
    return trace.z.flatten(0, 1).float()


class ModelWithPriorDraws(Model):
    """The usual composition that also decodes draws of the prior, as input of a critic.

    Raises
    ------
    ParameterError
        Reconstructions of D are classes, through which the critic has no gradient for g.
    """

    def __init__(self, f: nn.Module, g: nn.Module, q: Latent, D: Likelihood, **more: Any) -> None:
        if isinstance(D, Categorical | Mixed):
            raise ParameterError(
                "A critic of x needs reconstructions with a gradient, but those of "
                'distance="categorical" and "mixed" are classes; choose another distance.'
            )
        super().__init__(f, g, q, D, **more)

    def forward(self, x: Tensor, clock: Clock, rng: Generator, K: int | None = None) -> Trace:
        trace = super().forward(x, clock, rng, K)
        drawn = self._decoder(self.sample(len(x), rng)[None])
        for name, output in (("made", trace.output), ("drawn", drawn)):
            made = self.D.mean(output[0])
            # missing elements get the same values in x and here, so the critic learns nothing there
            made = made if trace.mask is None else torch.where(trace.mask > 0, made, trace.x)
            trace.nodes[0].extras[name] = made
        return trace


class ImageCritic(Regularizer):
    """−½ E log C(g(z)) − ½ E log C(g(z')), z of the rows, z' of the prior: both should look real.

    C gets x itself and is convolutional for images and signals. C's own loss is −E log C(x)
    − ½ E log(1 − C(g(z))) − ½ E log(1 − C(g(z'))). Its last hidden layer gives the features of
    ``FeatureBound``. Needs a ``ModelWithPriorDraws``.

    Source: Larsen et al., "Autoencoding beyond pixels using a learned similarity metric",
    arXiv:1512.09300.
    """

    needs, settles, has_critic = frozenset({"prior", "smooth"}), False, True

    def build(self, sizes: Sizes, rng: Generator | None) -> None:
        network = conv if len(sizes.shape) > 1 else dense
        options = NetworkOptions(sizes.shape, sizes.latent_dim, numbers=1)
        self.critic = create(lambda: network(options)[0], rng)
        zero_last(self.critic)

    def features(self, trace: Trace) -> tuple[Tensor, Tensor]:
        """Features (3, B, ...) and log odds (3, B) for x, its reconstructions, and prior draws.

        Kept in the trace, so that the critic is evaluated once a step.
        """
        extras = trace.nodes[0].extras
        if "features" not in extras:
            rows = torch.cat([trace.x, extras["made"], extras["drawn"]])
            features = self.critic[:-1](rows)
            extras["features"] = features.unflatten(0, (3, -1))
            extras["log_odds"] = self.critic[-1](features).view(3, -1)
        return extras["features"], extras["log_odds"]

    def forward(self, model: Composition, trace: Trace) -> Tensor:
        return F.softplus(-self.features(trace)[1][1:]).mean()

    def own_loss(self, model: Composition, trace: Trace) -> Tensor:
        log_odds = self.features(trace)[1]
        return critic_loss(log_odds[0], log_odds[1:])


class FeatureBound(Bound):
    """½ ‖φ(x) − φ(g(z))‖², φ a critic's last hidden layer; γ times that for g.

    That is −log N(φ(x); φ(g(z)), I), up to a constant. It does not train φ. The score is the
    distance D of x itself, because φ changes during training.

    Source: Larsen et al., arXiv:1512.09300.
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
        real, made, _ = self._critic[0].features(trace)[0]
        nats: Tensor = 0.5 * (real - made).square().sum(-1).mean()
        return nats

    def forward(self, trace: Trace) -> Tensor:
        return self.gamma * self.encoder(trace)

    def score(self, trace: Trace) -> Tensor:
        return trace.distance.mean()
