"""Models: where they lie, how they are loaded, and on which device. Nothing here knows of training."""
