"""JointVAE: continuous and discrete latents together."""
