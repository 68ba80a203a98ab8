"""What all other parts use: files, processes, options, suggestions."""
