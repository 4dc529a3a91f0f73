"""From YAML text to accepted pools: parse with marks, validate all at once, compare."""
