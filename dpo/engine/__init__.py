"""The packed engine: pairs laid out in packs, attention over packs, log-probabilities, and the reference cache."""
