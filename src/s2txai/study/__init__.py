"""A configuration: reading it, planning its jobs, fetching and estimating what they need."""
