"""The trainers of both engines, and how one is built from a run's settings."""
