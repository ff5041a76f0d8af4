"""What all systems share: patients split and trained on, evaluated, stored, run."""
