"""A request: its messages, its phases, its slot, and what is published of it. Imports no other room."""
