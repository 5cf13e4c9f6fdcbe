"""Priors over the codes of a trained `cifar_vq` model, learned autoregressively."""
