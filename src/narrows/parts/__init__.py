"""The slots of the equation: f and g, q, c, D, p, R and how they fold into a loss."""
