"""The three-stage pipeline on intersectional subgroups."""
