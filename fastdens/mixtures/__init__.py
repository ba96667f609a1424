"""Estimators of mixtures for a batch of models."""
