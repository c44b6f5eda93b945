"""Recipes: check the stages of a YAML file together, then run them one after another."""
