"""Pure functions of log-probabilities and labels, in float64 NumPy; torch is not needed to score stored predictions."""
