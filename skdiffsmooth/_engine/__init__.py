"""The engine: posterior means, covariances and log-densities of data under noise."""
