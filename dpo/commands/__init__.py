"""The commands of `dpo`: one file per command, each with add_to(subparsers)."""
