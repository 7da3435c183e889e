"""When computers reach the estimate: the essay's dates, the records since, and the trends."""
