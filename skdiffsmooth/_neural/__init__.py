"""A score learned by a small network: the network, its training, its estimator."""
