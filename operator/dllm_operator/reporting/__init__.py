"""What a resource's status says: failures classified, conditions, Events."""
