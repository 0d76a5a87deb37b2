"""What every other package stands on: errors, schemas, locations, outputs, quarantine, hashing, text."""
