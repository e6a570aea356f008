"""How a plan is carried out: what one worker does (``worker``), in which order (``schedule``), where (``executors``).

``planning`` asks the store what a plan must know; ``make`` starts and stops a run; ``timing`` measures latencies;
``run_status`` and ``progress`` show a run; ``estimate`` predicts how long it takes.  Change things here when there is a
new kind of artefact or a new place to work.  Imports ``store``, ``suite`` and the leaves; scores nothing.
"""
