"""Experiments on real patients: one module a published system."""
