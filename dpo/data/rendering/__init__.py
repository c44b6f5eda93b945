"""From preferences to token ids."""
