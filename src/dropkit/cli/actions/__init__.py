"""What the commands do that need torch; each module is imported when its command runs, not for its help."""
