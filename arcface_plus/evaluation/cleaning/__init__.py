"""What is likely wrong in a folder of faces: ``arcface-plus data clean``. See docs/cleaning.md.

- ``cleaning.py``     from photographs to clean.csv and clean.html; applying what they propose
- ``photographs.py``  the photographs: a folder or a record file; what is seen without a model
- ``people.py``       likeness, the scale that all findings but duplicates are measured on
- ``duplicates.py``   near-duplicates, and which copy is kept
- ``labels.py``       photographs that are likely of another person
- ``identities.py``   one person in two folders, two people in one
- ``search.py``       all four kinds, in the order in which they depend on each other
- ``findings.py``     kinds, thresholds, the lines of clean.csv
- ``page.py``         the HTML page (``page.html.j2``)
- ``moves.py``        moving photographs as proposed, and back
"""
