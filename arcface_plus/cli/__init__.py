"""The command line: words are parsed here, and nothing else is done here.

- ``app.py``: every verb, ``train`` itself, and ``run``, which turns errors into exit codes.
- ``errors.py``: those codes, and ``refuse`` for options that do not go together.
- ``embed.py``, ``export.py``, ``ijb.py``, ``identify.py``: the verbs of these names;
  ``verify/`` is a folder.
- ``configs.py``, ``tammes.py``, ``margins.py``, ``info.py``: the verbs of these names.
- ``use/``: ``compare``, ``search``, ``index remove``.
- ``data/``: ``data pack``, ``check``, ``pairs``, ``split`` … ``study/``: ``study NAME``.
- ``model_options.py``: the options of every verb that embeds images.
- ``progress.py``: bars on a terminal, lines elsewhere. ``json_files.py``: results as JSON files.
"""
