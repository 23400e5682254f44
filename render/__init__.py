"""From (config, seed) to paired renders with labels from the geometry."""
