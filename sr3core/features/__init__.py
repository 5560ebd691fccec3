"""Other people's networks that metrics look through: Inception, classifiers, their weight files."""
