"""The diffusion model: its parameters, how it is fitted, and how log-densities are computed."""
