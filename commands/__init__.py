"""The commands of `reaugkd`, one a file, thin: what a command needs is imported when it runs."""
