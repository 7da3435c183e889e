"""How fast computers grow, and when they reach the estimate."""
