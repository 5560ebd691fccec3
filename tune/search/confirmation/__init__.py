"""Whether what a search found is true: other images, fresh noise."""
