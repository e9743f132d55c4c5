"""Training: batches, the loop and what surrounds it. Models and objectives are given to it."""
