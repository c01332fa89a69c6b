"""The producing half of a web application: what it imports to enqueue work for jobsd, and nothing that does the work."""
