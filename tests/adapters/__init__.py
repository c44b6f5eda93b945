"""Tests of dpo.adapters."""
