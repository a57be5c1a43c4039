# One page for all runs.


rule report:
    input:
        transcripts=JOBS.tables("decode/transcripts.csv"),
        scores=JOBS.tables("decode/scores.csv"),
        utterances=JOBS.tables("correlate/utterances.csv"),
        reliability=JOBS.tables("correlate/reliability.csv"),
        summary=JOBS.tables("correlate/summary.csv"),
        mixing=JOBS.tables("correlate/mixing.csv"),
        best_heads=JOBS.tables("correlate/best_heads.csv"),
        classes=JOBS.tables("correlate/classes.csv"),
        verdict=JOBS.tables("heads/verdict.json"),
        curves=JOBS.tables("deletion/curves.csv"),
        auc=JOBS.tables("deletion/auc.csv"),
        sensitivity=JOBS.tables("sensitivity/sensitivity.csv") if STUDY.designs else [],
        timestamps=JOBS.timed_tables("summary.csv"),
        failures=JOBS.tables("failures.tsv"),
        decode=JOBS.all_shards("decode"),
        aggregate=JOBS.all_shards("aggregate"),
        smx=JOBS.all_shards("smx"),
        paper=os.path.relpath(ROOT / "config" / "paper_reference.csv"),
    output:
        page=report(
            layout.PAGE,
            caption="../report/page.rst",
            category="Report",
            labels={"result": "the page"},
        ),
        sweep=report(
            layout.REPORT + "/sweep.csv",
            caption="../report/sweep.rst",
            category="Report",
            labels={"result": "all runs in one table"},
        ),
        layers=report(
            layout.REPORT + "/layers.csv",
            caption="../report/layers.rst",
            category="Report",
            labels={"result": "all runs layer by layer"},
        ),
        figures=report(
            directory(layout.REPORT + "/figures"),
            # The PDFs beside them are the same figures.
            patterns=["{figure,[^/]+}.png", "{dataset}/{model}/{task}/{figure}.png"],
            caption="../report/figures.rst",
            category="Figures",
            subcategory=figure_heading,
            labels={"figure": "{figure}"},
        ),
        # The page loads from it what is opened.
        explorer=directory(layout.REPORT + "/explorer"),
    log:
        LOGS + "/report.log",
    benchmark:
        BENCHMARKS + "/report.tsv"
    resources:
        mem_mb=JOBS.by_attempt(4000),
        runtime=JOBS.by_attempt(30),
    params:
        version=JOBS.version("report"),
        # The page follows their order.
        runs=JOBS.run_names(),
        # Printed on the page.
        config=in_order(config),
        models=in_order(STUDY.models),
        datasets=in_order(STUDY.datasets),
    message:
        "Writing the report"
    script:
        "../scripts/report.py"
