"""How a model learns to reason."""
