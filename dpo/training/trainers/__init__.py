"""The trainers of both engines, and the code that builds one from a run's settings."""
