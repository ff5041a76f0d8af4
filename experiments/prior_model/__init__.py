"""A published model's predictions for real patients."""
