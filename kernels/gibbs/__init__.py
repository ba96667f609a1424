"""Collapsed Gibbs sampling of Dirichlet-process Gaussian mixtures."""
