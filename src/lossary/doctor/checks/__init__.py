"""The checks, a few of one kind to a file. A check's docstring is its page."""
