"""Children written where they have drifted from what is wanted, and pruned."""
