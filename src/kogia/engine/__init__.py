"""How a model speaks: requests, sampling, and a batch that grows and shrinks while it runs."""
