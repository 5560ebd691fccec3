"""Pixels: value ranges and memory layouts, crops, exact resizing."""
