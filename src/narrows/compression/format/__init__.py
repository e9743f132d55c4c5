"""Files: exact integers, entropy coding, and the format of a .narrow file."""
