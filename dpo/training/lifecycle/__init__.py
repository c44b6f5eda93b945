"""Starting, resuming and stopping a run."""
