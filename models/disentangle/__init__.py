"""Disentanglement models: pose code, appearance code, image decoder."""
