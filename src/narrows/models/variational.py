"""Variational autoencoders: with a flow, classes, a learned prior, levels; for images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from narrows.estimators.base import Estimator
from narrows.estimators.build import Parts
from narrows.estimators.class_conditional import ClassConditional
from narrows.estimators.parameters import fraction, nonnegative, parameter
from narrows.parts.bounds import ImportanceWeighted
from narrows.parts.ladder import LadderModel, ladder_networks
from narrows.parts.latents.flows import KINDS, FlowPosterior
from narrows.parts.latents.gaussian import DiagonalGaussian
from narrows.parts.model import ClassConditionalModel, Model, ShiftedModel
from narrows.parts.objective import Term
from narrows.parts.priors.base import StandardNormal
from narrows.parts.priors.vamp import VampPrior
from narrows.parts.regularizers.base import Ramp
from narrows.parts.regularizers.kl_and_mmd import KL


def vae_parts(*terms: Term, **changes: Any) -> Parts:
    """The parts of a VAE, with these terms; ``changes`` are fields of ``Parts``."""
    usual = {"q": DiagonalGaussian(), "distance": "gaussian", "p": StandardNormal()}
    return Parts(**{**usual, "terms": terms, **changes})


def optional_importance() -> Any:
    """The parameter n_importance of a model that is trained on the ELBO by default."""
    help = "Draws of the importance-weighted bound; 1: the evidence lower bound."
    return parameter(1, help, kind=int, low=1)


def importance_begin() -> Any:
    """The parameter begin of such a model."""
    help = "Share of the training after which the importance-weighted bound is used."
    return fraction(0.5, help)


def elbo_or_weighted_parts(kl: KL, n_importance: int, begin: float, **changes: Any) -> Parts:
    """The parts of a VAE with this KL term, or of an IWAE if there are more draws than one."""
    if n_importance == 1:
        return vae_parts(Term("kl", kl), **changes)
    return vae_parts(bound=ImportanceWeighted(int(n_importance), float(begin)), **changes)


@dataclass(kw_only=True, eq=False, repr=False)
class VariationalAutoencoder(Estimator):
    """min over f, g of E_x E_q [−log p(x | z)] + β KL(q(z | x) ‖ N(0, I)): minus the ELBO.

    The code is Gaussian, q = N(μ(x), diag σ²(x)); new x are decoded draws from the prior. For real
    numbers p(x | z) is a Gaussian with one learned scale, for zeros and ones a Bernoulli.

    Source: Kingma & Welling, "Auto-encoding variational Bayes", arXiv:1312.6114; the learned scale:
    Rybkin et al., arXiv:2006.13202; β: Higgins et al., ICLR 2017.

    Parameters
    ----------
    beta : float
        The weight β of the KL divergence; 1 is the evidence lower bound.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import VariationalAutoencoder
    >>> X = load_digits().images[:200]
    >>> vae = VariationalAutoencoder(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    beta: float = nonnegative(1.0, "Weight of the KL divergence.")

    _generates = _likely = True

    def _parts(self) -> Parts:
        return vae_parts(Term("kl", KL(), float(self.beta)))


@dataclass(kw_only=True, eq=False, repr=False)
class FlowVAE(Estimator):
    """min over f, g, F of E_x E_q [−log p(x | z) + β (log q_0(z_0 | x) − log|det J_F| − log p(z))].

    z = F(z_0), z_0 ~ N(μ(x), diag σ²(x)): the posterior can be curved and correlated, unlike a
    diagonal Gaussian. The flow F is a sequence of invertible maps, planar, radial or inverse
    autoregressive.

    Source: Rezende & Mohamed, "Variational inference with normalizing flows", arXiv:1505.05770;
    Kingma et al., "Improving variational inference with inverse autoregressive flow",
    arXiv:1606.04934.

    Parameters
    ----------
    flow : str
        "planar", "radial" or "iaf".
    n_flows : int
        Number of maps.
    beta : float
        The weight β of the KL divergence, which is estimated from the draws.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import FlowVAE
    >>> X = load_digits().images[:200]
    >>> vae = FlowVAE(latent_dim=4, flow="planar", max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    flow: str = parameter("iaf", "The kind of map.", choices=KINDS)
    n_flows: int = parameter(4, "Number of maps.", kind=int, low=1, high=256)
    beta: float = nonnegative(1.0, "Weight of the KL divergence.")

    def _parts(self) -> Parts:
        q = FlowPosterior(self.flow, int(self.n_flows))
        return vae_parts(Term("kl", KL(), float(self.beta)), q=q)


@dataclass(kw_only=True, eq=False, repr=False)
class ConditionalVAE(ClassConditional):
    """min over f, g of E_x E_q [−log p(x | z, y)] + β KL(q(z | x, y) ‖ N(0, I)), y the class of x.

    The code need not hold what y already says. In training the class of a tenth of the rows is
    hidden, so that the class is optional afterwards: ``transform(X)`` or ``transform(X, y)``,
    ``sample(n)`` or ``sample(n, y=3)``.

    Source: Sohn, Lee & Yan, "Learning structured output representation using deep conditional
    generative models", NeurIPS 2015; Kingma et al., arXiv:1406.5298.

    Parameters
    ----------
    beta : float
        The weight β of the KL divergence.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import ConditionalVAE
    >>> digits = load_digits()
    >>> X, y = digits.images[:200], digits.target[:200]
    >>> cvae = ConditionalVAE(latent_dim=4, max_epochs=3, random_state=0).fit(X, y)
    >>> cvae.sample(5, y=3, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    beta: float = nonnegative(1.0, "Weight of the KL divergence.")

    def _parts(self) -> Parts:
        return vae_parts(Term("kl", KL(), float(self.beta)), model=ClassConditionalModel)


@dataclass(kw_only=True, eq=False, repr=False)
class MSSSIMVAE(Estimator):
    """min over f, g of E_x E_q [n (1 − MS-SSIM(x, g(z)))] + β KL(q(z | x) ‖ N(0, I)); n elements.

    A variational autoencoder for images whose distance compares local means, contrasts and patterns
    at several scales, as many as the image has room for. The distance is no density, so there is no
    ``log_likelihood``.

    Source: Snell et al., "Learning to generate images with perceptual similarity metrics",
    arXiv:1511.06409; the measure: Wang, Simoncelli & Bovik, "Multiscale structural similarity for
    image quality assessment", Asilomar 2003.

    Parameters
    ----------
    beta : float
        The weight β of the KL divergence.

    Raises
    ------
    InputError
        X does not hold images of at least 6 × 6 pixels.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import MSSSIMVAE
    >>> X = load_digits().images[:200]
    >>> vae = MSSSIMVAE(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = True

    beta: float = nonnegative(1.0, "Weight of the KL divergence.")

    def _parts(self) -> Parts:
        return vae_parts(Term("kl", KL(), float(self.beta)), distance="ms_ssim")


@dataclass(kw_only=True, eq=False, repr=False)
class VampVAE(Estimator):
    """min over f, g, u of E_x E_q [−log p(x | z) + log q(z | x) − log 1/N Σ_n q(z | u_n)].

    The prior is the mean of the posteriors at N inputs u_n, which are learned with f and g, so that
    codes need not follow one Gaussian. The inputs start at training rows.

    Source: Tomczak & Welling, "VAE with a VampPrior", arXiv:1705.07120.

    Parameters
    ----------
    n_inputs : int
        N.
    n_importance : int
        Draws of the importance-weighted bound (Burda et al., arXiv:1509.00519); 1: the evidence
        lower bound.
    begin : float
        Share of the training after which the importance-weighted bound is used.
    shifts : bool
        For images: in training most are shifted by a pixel, and f and g are given the direction
        (Jun et al., ICML 2020), which reduces overfitting. Helps likelihoods of few images.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import VampVAE
    >>> X = load_digits().images[:200]
    >>> vae = VampVAE(latent_dim=4, n_inputs=20, max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _generates = _likely = True

    n_inputs: int = parameter(100, "Learned inputs of the prior.", kind=int, low=1, high=10_000)
    n_importance: int = optional_importance()
    begin: float = importance_begin()
    shifts: bool = parameter(
        False, "Shift images by a pixel in training, and give f and g the direction.", kind=bool
    )

    def _parts(self) -> Parts:
        return elbo_or_weighted_parts(
            KL(),
            self.n_importance,
            self.begin,
            p=VampPrior(int(self.n_inputs)),
            model=ShiftedModel if self.shifts else Model,
        )


@dataclass(kw_only=True, eq=False, repr=False)
class LadderVAE(Estimator):
    """min over f, g of E_x E_q [−log p(x | z)] + Σ_l KL(q(z_l | x, z_{>l}) ‖ p(z_l | z_{>l})).

    The code has levels z_1, ..., z_L: the highest is drawn first, every other given those above
    it, in the prior and in the posterior. ``latent_dim`` counts the numbers of all levels together;
    a code is all of them, the finest level first.

    Source: Sønderby et al., "Ladder variational autoencoders", arXiv:1602.02282; the prior of the
    highest level: Tomczak & Welling, "VAE with a VampPrior", arXiv:1705.07120.

    Parameters
    ----------
    n_levels : int
        L; at most as many as ``latent_dim``.
    free : float
        Nats of every number of the code that cost nothing at first ("free bits"), falling to 0 in
        the first half of the training: without them the lower levels are not used.
    n_inputs : int
        The prior of the highest level is a mixture of the posteriors at so many learned inputs; 0:
        a standard normal.
    n_importance : int
        Draws of the importance-weighted bound (Burda et al., arXiv:1509.00519); 1: the evidence
        lower bound.
    begin : float
        Share of the training after which the importance-weighted bound is used.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import LadderVAE
    >>> X = load_digits().images[:200]
    >>> ladder = LadderVAE(latent_dim=6, max_epochs=3, random_state=0).fit(X)
    >>> ladder.transform(X).shape, ladder.sample(5, random_state=0).shape
    ((200, 6), (5, 8, 8))
    """

    _generates = _likely = True

    n_levels: int = parameter(2, "Levels of the code.", kind=int, low=1, high=16)
    free: float = nonnegative(
        0.2,
        "Nats of every number of the code that cost nothing at first, and less up to the middle of "
        "the training; without them lower levels are not used.",
    )
    n_inputs: int = parameter(
        0,
        "Learned inputs whose posteriors are the prior of the highest level; 0: a normal prior.",
        kind=int,
        low=0,
        high=10_000,
    )
    n_importance: int = optional_importance()
    begin: float = importance_begin()

    def _parts(self) -> Parts:
        n = int(self.n_inputs)
        return elbo_or_weighted_parts(
            KL(free=Ramp(0.0, 0.5, float(self.free))),
            self.n_importance,
            self.begin,
            p=VampPrior(n) if n else StandardNormal(),
            model=LadderModel,
            networks=ladder_networks(self.n_levels),
        )
