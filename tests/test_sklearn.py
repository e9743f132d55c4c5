"""scikit-learn's own contract, over every public estimator."""

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from narrows.estimators.catalogue import MODELS, model_class

ESTIMATORS = [model_class(name)(max_epochs=5, random_state=0) for name in MODELS]


@parametrize_with_checks(ESTIMATORS)  # no expected failure is declared: there is none
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)
