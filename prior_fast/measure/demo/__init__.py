"""What `make demo` reached: its figures beside chance and beside a model that was trained with labels."""
