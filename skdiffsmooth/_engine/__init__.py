"""The engine: posterior means, covariances and log-densities of data seen through noise."""
