"""What is published and shown of a search."""
