"""Watches of the API server, and the queue of resources that they fill."""
