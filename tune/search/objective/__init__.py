"""How every schedule is judged alike: images, features, distances."""
