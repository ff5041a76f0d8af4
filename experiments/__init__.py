"""Experiments on real patients: a package for each published system."""
