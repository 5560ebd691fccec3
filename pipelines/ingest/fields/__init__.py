"""Fields for training and measuring: read, converted to what the network sees, and stacked."""
