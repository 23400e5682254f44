"""The `handaug` program: one thin file for each command."""
