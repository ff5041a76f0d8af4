"""Published baselines that the systems are compared with."""
