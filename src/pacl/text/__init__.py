"""Words: labels, templates, nouns."""
