"""Which modules gate dropout by their own `self.training`, and how that flag is overridden for one thread."""
