"""Wheels in empty environments: ``python -m tests.wheels`` installs one beside the lowest and the newest packages."""
