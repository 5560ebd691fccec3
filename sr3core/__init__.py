"""SR3's mathematics and models in plain torch and numpy: no Ray, no storage, no file layout."""
