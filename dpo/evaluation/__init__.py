"""Measures models on benchmarks and on held-out pairs, and compares several models."""
