"""The diffusion model: how it is made from data and parameters, and its methods."""
