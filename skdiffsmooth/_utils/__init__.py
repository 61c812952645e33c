"""Functions that all subpackages use: checks, conversion to torch, processes, base classes."""
