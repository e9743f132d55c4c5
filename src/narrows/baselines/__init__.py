"""What stands beside every result: the simple method, on the same rows or the same image.

`PCA` beside every code; `narrows.baselines.filters` beside every denoised image.
"""

from narrows.baselines.pca import MOST_COMPONENTS, PCA, filled, fit_pca

__all__ = ["MOST_COMPONENTS", "PCA", "filled", "fit_pca"]
