"""`python -m cluster COMMAND`: the entry point of a job, which is `sr3` where the nodes' PATH may lack it."""

import sys

from cluster.cli import main

sys.exit(main())
