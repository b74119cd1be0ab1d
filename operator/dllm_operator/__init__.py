"""The Kubernetes operator of dLLM-Serve. Only its package exists so far."""
