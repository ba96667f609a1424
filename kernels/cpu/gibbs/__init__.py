"""The sampler on a CPU: the twins of :mod:`fastdens.kernels.gibbs`, compiled, in files of the same names."""
