"""Engine: a captured model becomes a Graph, a Graph becomes a Plan, a Plan runs natively."""
