"""The policy, the model that is trained: loading it, and its LoRA adapter."""
