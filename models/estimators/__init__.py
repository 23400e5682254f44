"""Pose estimators, one registry."""
