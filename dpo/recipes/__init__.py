"""Recipes: the stages of a YAML file, checked together and run one after another."""
