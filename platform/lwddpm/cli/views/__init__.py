"""What a person reads at the end of a verb, a file for each group of verbs; machines get `--json`."""
