"""What carries data and training, and knows no part: it is handed a model and an objective."""
