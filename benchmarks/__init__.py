"""Benchmarks of fastdens beside its peers and the floor that matrix products set."""
