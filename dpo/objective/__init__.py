"""From log-probabilities to losses and metrics. Knows packs, and nothing of flags or trainers."""
