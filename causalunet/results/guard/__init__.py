"""Nothing in a store is believed: checks before it is opened, while it is read, and when it is verified."""
