"""Upscaling by trained stages: whole images, tiles of large ones, cascades, and images from noise."""
