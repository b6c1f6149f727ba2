"""Drop-in replacements: what other tools' callers call, under their names and with their results."""
