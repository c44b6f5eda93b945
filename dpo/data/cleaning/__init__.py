"""Which pairs are kept: checks of one pair, and of pairs against each other."""
