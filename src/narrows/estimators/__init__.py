"""The interface of scikit-learn: parameters, validation, base class, fitted state, files."""
