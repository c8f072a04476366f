"""What a model is: its numbers, its layers, its folder on disk."""
