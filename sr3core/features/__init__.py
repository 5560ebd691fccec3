"""Published networks that metrics use, Inception and classifiers, and their weight files."""
