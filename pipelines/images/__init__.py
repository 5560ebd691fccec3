"""Bytes to pixels: decoding, colour, codecs, face alignment, and why an image is rejected."""
