"""The sampler on a CPU."""
