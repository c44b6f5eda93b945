"""What a run reports: tables, sample answers, the model card."""
