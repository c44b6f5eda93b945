"""Merges a LoRA adapter into its base, and saves the result as a whole model."""
