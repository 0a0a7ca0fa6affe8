"""Floor 4, train. In: token files and hyperparameters. Out: base weights and an evaluation report."""
