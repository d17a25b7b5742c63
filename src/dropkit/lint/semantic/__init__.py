"""What can be known of source code without running it: text, names, classes, guards. Knows no rule, and no torch."""
