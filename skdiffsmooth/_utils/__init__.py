"""Code that all subpackages use: checks, numpy and torch, processes, base of estimators."""
