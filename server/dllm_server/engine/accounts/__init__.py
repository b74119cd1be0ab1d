"""Who holds which bytes, and where the time went."""
