"""The only place that imports bpy: a scene in, pixels out."""
