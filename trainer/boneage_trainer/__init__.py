"""The bone age trainer: the part of boneagectl that runs on the rented machine."""

__version__ = "0.1.0"
