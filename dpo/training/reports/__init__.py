"""What a run writes about itself: tables, sample answers, the model card."""
