"""From an entry of --datasets to raw rows."""
