"""The named models: each picks parts, and holds no training code. One file for each family."""
