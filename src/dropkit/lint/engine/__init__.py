"""dropkit check: rules over files, what is ignored, how it is shown and mended."""
