"""The owner's files: records read from them, outputs written to them, the texts and images in them. Knows no table."""
