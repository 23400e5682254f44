"""Datasets in miniature, each in the exact layout of the real one, made from known hands."""
