"""Pixels: ranges and layouts, crops, exact resizing."""
