"""Exact fast algorithms: same weights, other arithmetic."""
