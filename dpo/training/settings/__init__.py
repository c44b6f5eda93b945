"""The flags of a training run: defaults, checks, and the values derived from them."""
