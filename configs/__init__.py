"""The shipped configuration files; ``--config NAME`` finds them by name from any folder."""
