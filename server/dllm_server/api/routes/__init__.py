"""Endpoints, and how a generation becomes their response."""
