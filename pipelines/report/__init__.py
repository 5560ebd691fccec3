"""`sr3 report` and `sr3 status`: a run as one HTML page, and its state in a terminal."""
