"""The sections of ``speed.py``: each measures one question and writes one table.

``measure(options, book)`` appends rows, ``write(book)`` makes the table from all that are there.
"""
