"""A diffusion with a score learned by a small network: the network, its training, the estimator."""
