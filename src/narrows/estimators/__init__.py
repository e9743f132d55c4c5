"""The scikit-learn face: parameters, the base every model shares, the models, and ``load``."""
