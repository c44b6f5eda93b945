"""A LoRA adapter and its base in, one whole model out."""
