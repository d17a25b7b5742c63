"""What is measured, shown: units that can be read, and pages that stand alone."""
