"""What benchmarks publish beside accuracy: error rates by group, and what quality scores are worth.

- ``columns.py``      ``people.csv`` and files of quality scores, matched to the pairs
- ``group_rates.py``  FNMR of each group, FMR of each pair of groups, at one threshold
- ``group_test.py``   does some group differ? A permutation test over people
- ``discard.py``      FNMR while the pairs of lowest quality are discarded
"""
