"""The interface of scikit-learn: parameters, validation, the base class, the fitted state, files."""
