"""Fits that versions of the library saved, one folder for each format of files, and what they said of some points.

``python -m tests.saved.write`` adds the fits of this version to the folder of its format, those that it lacks: what an
earlier version wrote is never written again.
"""
