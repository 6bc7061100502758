"""
The benchmark: Breaker and its peers, side by side, in one run on one machine.

`python -m bench [forwarding|features|decision|jobs|all|report] [--quick] [--out bench/results]`

    forwarding.py   part 1: calls through a gateway, against five other ways of building one
    features.py     part 1: what each feature of ours costs
    decision.py     part 2: decisions in process, against the limiters that people use
    jobs.py         part 3: durable jobs in process, against nine job queues
    job_queues.py   its subjects, and how each is started
    jobs_http.py    part 3: the same over HTTP
    jobs_claims.py  parts 3 and 4: a million jobs waiting; fairness between tenants
    jobs_recovery.py  part 4: a replica is killed
    subjects/       how each subject is started, and the driver that the limiters share
    peers/          what the peers' teams would have written: configuration, code, exact versions
    job_peers/      the same for the job queues, with the driver that they share
    load.py         the two load generators: wrk as fast as it goes, pacer.py at a constant rate
    install.py      brings the peers to bench/.peers and says loudly what the system lacks
    store.py        a Redis of its own, with the append-only file in a folder that is thrown away
    store_cost.py   what a subject costs the store, from the store's own counters
    processes.py    everything that is started here, and that all of it ends
    machine.py      what the figures were measured on
    report.py       results as JSON, and as docs/benchmarks.md
    jobs_report.py  the tables of part 3 in it
    tables.py       how all tables look

Read ratios, not absolutes: load generator, subject, store and downstream share the machine's cores,
so a figure here is far below what the same subject does on a machine of its own.
"""
