"""The benchmark that ``fastdens bench`` runs: the library beside its peers and beside floors, in one process."""
