"""Networks of other programs, whose weights `sr3 import` takes over: they compute what those programs compute."""
