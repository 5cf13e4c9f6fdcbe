"""Categorical codebook models of color images, trained by several rules."""
