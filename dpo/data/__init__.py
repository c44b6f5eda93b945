"""Rows in, token ids out, every row accounted for. No torch here, so that it starts at once and runs anywhere."""
