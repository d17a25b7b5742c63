"""Callbacks for the training loops of other libraries, one file for each: audits, and rates that move."""
