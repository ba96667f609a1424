"""Inference as pure functions of states: EM, Gibbs sampling, variational."""
