"""What all wings use: checks of parameters, numpy and torch, processes, the base of estimators."""
