"""Load on OpenAI-compatible endpoints, ours or others', and what it measured: ``dllm bench``. Imports neither
torch nor the engine."""
