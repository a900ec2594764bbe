"""From configurations to records: one run, several as a pack, one in several processes, and sweeps of many.

``plan`` checks and identifies a run, ``build`` makes its parts, ``run`` is the run in the making. ``execute`` chooses
the backend that trains it: ``single``, ``packed`` or ``distributed``. ``results`` writes its record, ``state`` files
to continue from. ``sweep`` executes many runs on ``executors``.
"""
