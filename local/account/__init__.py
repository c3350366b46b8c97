"""The emulated AWS account of this laptop."""
