"""What a model reads: corpora, packed tokens, conversations with loss masks."""
