"""Model definitions, one file a family, and the loader of their checkpoints."""
