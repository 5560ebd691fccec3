"""`sr3 doctor`: checks of one machine, and of every node of a cluster."""
