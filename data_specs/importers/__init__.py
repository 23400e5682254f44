"""Public hand datasets in: one module for each format, one way from their hands to our rows."""
