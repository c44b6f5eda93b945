"""Inspection of prepared data: statistics, tables, thresholds and an HTML page. It does not import torch."""
