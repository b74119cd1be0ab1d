"""How many pods each pool has under load, from what waits and what runs. Pure; effects are the operator's."""
