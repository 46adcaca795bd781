"""The paper's tables and figures as lists of commands, and the tables that their results make."""
