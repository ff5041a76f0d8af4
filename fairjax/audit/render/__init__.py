"""What the page and its figures are drawn with."""
