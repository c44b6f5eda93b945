"""What a preparation is made of: figures, thresholds over them, and the page that shows them. No torch here."""
