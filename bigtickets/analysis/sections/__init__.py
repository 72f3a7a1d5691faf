"""What a report says: one module a section, from the table and the statistics."""
