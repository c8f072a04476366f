"""How a model learns from text."""
