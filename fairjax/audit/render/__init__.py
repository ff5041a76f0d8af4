"""Rendering of the page, its tables and its figures."""
