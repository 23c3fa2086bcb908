"""What can reason about an image and what can segment it."""
