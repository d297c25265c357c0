"""Published results, run again on real data with this library, each with its dense control."""
