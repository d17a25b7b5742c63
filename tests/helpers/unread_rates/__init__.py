"""Small projects with rates that nothing reads, and rates that something may read."""
