"""Answers written by a model, for pairs that no data set has. Torch in the back ends and the reward model alone."""
