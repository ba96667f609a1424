"""Data sets of images: digits and glyphs, torchvision's, and folders."""

from fastdens.training.datasets.images import Images, load_images

__all__ = ["Images", "load_images"]
