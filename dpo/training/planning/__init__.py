"""What a run would do, without weights or devices."""
