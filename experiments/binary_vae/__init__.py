"""VAEs with binary latents under directed and Boltzmann priors, trained by any estimator."""
