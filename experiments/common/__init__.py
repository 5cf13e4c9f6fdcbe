"""What all programs share: flags, a run, its records, evaluation and tables."""
