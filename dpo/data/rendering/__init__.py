"""Rendering: from preferences to token ids."""
