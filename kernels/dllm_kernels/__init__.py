"""GPU operations of dLLM-Serve: each a Triton kernel beside its plain PyTorch twin. Knows tensors, not
requests."""
