"""Sources of images: each layout and archive is listed once, as items that any worker can read on its own."""
