"""The metrics of section 4: pixel fidelity, consistency, and distances between sets of images."""
