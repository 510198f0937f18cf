"""The verification report: one HTML page that loads nothing and runs no script.

- ``page.py``         ``write_report``: sections to a page (``report.html.j2``, ``report.css.j2``)
- ``section.py``      ``ReportSection``: what it shows of one pair set, with its intervals
- ``charts.py``       distances, folds, accuracy during training
- ``curves.py``       ROC and DET with 95 % bands
- ``benchmark_charts.py``  error rates by group, error versus discard
- ``tables.py``       the tables, key figures and notes
- ``image_pairs.py``  the pairs that were decided most wrongly, with their photographs
- ``svg.py``          scales, axes and marks of the charts
- ``words.py``        how numbers and foreign text are written
"""
