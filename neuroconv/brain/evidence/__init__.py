"""What speaks for and against the estimate: omissions, contradictions, other estimates."""
