"""The Kubernetes operator of dLLM-Serve."""
