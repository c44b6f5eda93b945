"""Planning a run without weights or devices: --dry_run."""
