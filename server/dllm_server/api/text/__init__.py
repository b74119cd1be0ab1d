"""From tokens to the text that may be shown. Imports no other room."""
