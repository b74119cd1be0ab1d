"""A request's plan, its choices running in the engine, and the answer gathered from them."""
