"""Token ids in, an aligned model out. torch starts here."""
