"""Losses and metrics, computed from log-probabilities. Depends on packs, but not on flags or trainers."""
