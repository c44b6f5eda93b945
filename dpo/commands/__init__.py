"""What `python -m dpo` can do: one file a command, each with add_to(subparsers)."""
