"""Samples that are no 8-bit RGB images: fields of named channels, their transforms and statistics."""
