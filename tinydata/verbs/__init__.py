"""The verbs, a folder each. A verb knows no other verb."""
