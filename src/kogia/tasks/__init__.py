"""What a model is asked, and how its answers are graded. Shared by training and measuring."""
