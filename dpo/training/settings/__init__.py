"""The flags of a run: their defaults, their checks, and what follows from them."""
