"""DVAE++: global discrete latents over a hierarchy of local ones."""
