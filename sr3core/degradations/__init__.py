"""Random degradations of images, by which low-resolution inputs like real ones are made in training (SR3+, 2023)."""
