"""Slow and obvious versions of every hot path: the specification that the fast ones are tested against."""
