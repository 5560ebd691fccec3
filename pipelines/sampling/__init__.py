"""Sampling with a trained run: held-out samples, images from noise, photos of any size."""
