"""What a model can do, on benchmarks and on held-out pairs, one model or several side by side."""
