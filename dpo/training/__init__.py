"""Training: from the flags of a run to a saved model and its reports."""
