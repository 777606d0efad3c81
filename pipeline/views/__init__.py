"""What readers see: published tables, the views over them, and what each column says of itself."""
