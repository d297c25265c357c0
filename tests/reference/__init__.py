"""Plain float64 reference implementations; they share nothing with the code under test."""
