"""Data sets of images: synthetic anagrams and glyphs, scikit-learn's digits, those of torchvision, and folders."""

from fastdens.training.datasets.images import Images, load_images
from fastdens.training.datasets.known_sizes import outline_images
from fastdens.training.datasets.streaming import StreamedImages, reading

__all__ = ["Images", "StreamedImages", "load_images", "outline_images", "reading"]
