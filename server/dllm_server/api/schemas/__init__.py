"""Bodies of requests, responses and errors."""
