"""How a plan is carried out: what one worker does (``worker``), in which order (``schedule``), where (``executors``).

``planning`` asks the store what a plan must know; ``make`` ties all together and stops in good order, ``timing``
measures latencies, ``live`` and ``progress`` show what is under way, ``estimate`` and ``simulate`` say beforehand what
it would take.  Change things here when there is a new kind of artefact or a new place to work.  Imports ``store``,
``suite`` and the leaves; scores nothing.
"""
