"""What a hand is in a file: joints, cameras, the HDF5 schema, reading, writing, merging, verifying, drawing."""
