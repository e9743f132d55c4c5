"""Models that are told a class with each row."""

from __future__ import annotations

from dataclasses import dataclass

from narrows.estimators.build import Parts
from narrows.estimators.class_conditional import ClassConditional
from narrows.estimators.parameters import parameter
from narrows.parts.class_conditional_model import Conditional
from narrows.parts.latents.base import DiagonalGaussian
from narrows.parts.objective import Term
from narrows.parts.priors.base import StandardNormal
from narrows.parts.regularizers.base import KL


@dataclass(kw_only=True, eq=False, repr=False)
class ConditionalVAE(ClassConditional):
    """min over f, g of E_x E_q [−log p(x | z, y)] + β KL(q(z | x, y) ‖ N(0, I)), y the class of x.

    The code need not say what y says already. A tenth of the training rows keep their class to
    themselves, so that rows may come with or without: ``transform(X)`` or ``transform(X, y)``,
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

    beta: float = parameter(1.0, "Weight of the KL divergence.", kind=float, low=0)

    def _parts(self) -> Parts:
        return Parts(
            q=DiagonalGaussian(),
            distance="gaussian",
            p=StandardNormal(),
            terms=(Term("kl", KL(), float(self.beta)),),
            model=Conditional,
        )
