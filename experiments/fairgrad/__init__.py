"""FairGrad on tables of real patients."""
