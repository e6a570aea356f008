"""``status``: how much of a suite is done, and what is running."""

from __future__ import annotations

import time

from benchmarks.commands.common import (
    STORE,
    Add,
    DataRoot,
    Plugins,
    Set,
    StoreDir,
    SuiteName,
    console,
    echo,
    load_plan,
    table,
)


def status(
    suite: SuiteName = "digits",
    add: Add = None,
    store: StoreDir = STORE,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    set_: Set = None,
) -> None:
    """Show how much of a suite is done and what is running.

    It works in any terminal that sees the store.
    """
    from benchmarks.work.planning import suite_status
    from benchmarks.work.run_status import clock, running, runs

    plan, the_store = load_plan(suite, store, set_, data_root, plugin, add)
    counts = suite_status(plan, the_store)
    table(
        f"Suite {plan.suite.name} in {store.resolve()}",
        ["artefacts", "done", "planned"],
        [(k, str(d), str(p)) for k, (d, p) in counts.items()],
    )
    active = running(the_store)
    live = {value["run"] for value in active}
    records = [value for value in runs(the_store) if value.get("suite") == plan.suite.name]
    for record in records:
        unfinished = record.get("state") in ("running", "stopping")
        if unfinished and record["run"] in live:
            left = record.get("eta_s")
            done = f"{record['done']} of {record['total']} artefacts"
            ending = f", about {clock(left)} left" if left is not None else ""
            echo(f"{record['state']} on {record['host']} (process {record['pid']}): {done}{ending}")
        elif record is records[-1]:
            ended = "died" if unfinished else record.get("state", "ended")
            echo(f"The last run {ended}, {clock(time.time() - record['updated'])} ago.")
    if active:
        from benchmarks.work.progress import running_table

        console.print(running_table(active))
