"""The recipe that trains dLLM-Serve's embedded model: data, tokenizer, model, training, export."""
