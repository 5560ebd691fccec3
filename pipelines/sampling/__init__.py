"""A trained run at work: held-out samples, images from noise, photos of any size."""
