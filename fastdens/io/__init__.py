"""Files: states, arrays, atomic writes."""
