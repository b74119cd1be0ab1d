"""Which requests run next and in which phase, and the flat batch that this makes."""
