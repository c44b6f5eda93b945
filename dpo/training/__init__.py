"""Training runs: from flags to a saved model and its reports."""
