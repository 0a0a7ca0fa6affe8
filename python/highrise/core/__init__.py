"""The ground under all floors: errors, configuration, stages, progress, shapes, weight files, the model catalogue.

Imports no floor; imports nothing heavy on its own.
"""
