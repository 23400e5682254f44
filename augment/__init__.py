"""Remix, label check, training-time transforms, and the measured gain."""
