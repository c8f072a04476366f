"""Text to tokens, conversations to prompts, and replies back to their parts."""
