"""Densities of a batch of models, their entropies and their divergences."""
