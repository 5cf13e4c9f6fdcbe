"""The Boltzmann prior, shared by `binary_vae` and `dvaepp`."""
