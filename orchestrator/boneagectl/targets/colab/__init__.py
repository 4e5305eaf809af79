"""Colab: a notebook that a person opens and runs. Not among the targets yet."""
