"""Tests of dpo.data."""
