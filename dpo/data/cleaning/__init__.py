"""Cleaning: checks of single pairs, comparisons between pairs, mixing, and the validation split."""
