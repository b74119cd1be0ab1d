"""The Kubernetes operator of dLLM-Serve. Only its package exists so far; it takes settings and memory from the server."""
