"""The analysis as a library: data in, results out."""
