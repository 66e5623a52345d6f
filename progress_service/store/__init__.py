"""What is stored, and the only code that changes it: tables, transactions, statements and the write path."""
