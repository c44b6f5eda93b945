"""Reading: from an entry of --datasets to raw rows."""
