"""Models: resolves a model's name, loads its weights and chooses its device. Does not depend on training."""
