"""Local and global features of pictures."""

from etr_ros.features.extractor import Extractor

__all__ = ["Extractor"]
