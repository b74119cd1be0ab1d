"""The serving engine of dLLM-Serve and its OpenAI-compatible HTTP API."""
