"""Densities of a batch of models, and what is computed from them."""
