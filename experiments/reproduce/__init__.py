"""Trains every published cell of a table that has no result yet, as far as the time goes."""
