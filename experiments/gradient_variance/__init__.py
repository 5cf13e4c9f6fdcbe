"""Bias and variance of every gradient estimator against the exact gradient."""
