"""The model that is trained: loading it, and its LoRA adapter."""
