"""Computation of the numbers of an audit from checked rows, with suppression."""
