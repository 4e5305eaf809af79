"""The bone age trainer: the part of boneagectl that runs on the target machine, on Python 3.10 or newer."""

__version__ = "0.1.0"
