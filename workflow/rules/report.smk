# One page for all runs.


def run_of_figure(wildcards):
    """Return the heading of a figure in Snakemake's own report."""
    if "dataset" not in wildcards.keys():
        return "All runs"
    return "{model} on {dataset}, {task}".format(**wildcards)


rule report:
    input:
        transcripts=tables("decode/transcripts.csv"),
        scores=tables("decode/scores.csv"),
        utterances=tables("correlate/utterances.csv"),
        reliability=tables("correlate/reliability.csv"),
        summary=tables("correlate/summary.csv"),
        mixing=tables("correlate/mixing.csv"),
        best_heads=tables("correlate/best_heads.csv"),
        classes=tables("correlate/classes.csv"),
        verdict=tables("heads/verdict.json"),
        curves=tables("deletion/curves.csv"),
        auc=tables("deletion/auc.csv"),
        sensitivity=tables("sensitivity/sensitivity.csv") if STUDY.designs else [],
        timestamps=timed_tables("summary.csv"),
        failures=tables("failures.tsv"),
        decode=shard_directories("decode"),
        aggregate=shard_directories("aggregate"),
        smx=shard_directories("smx"),
        paper=os.path.relpath(ROOT / "config" / "paper_reference.csv"),
    output:
        page=report(
            "results/report/index.html",
            caption="../report/page.rst",
            category="Report",
            labels={"result": "the page"},
        ),
        sweep=report(
            "results/report/sweep.csv",
            caption="../report/sweep.rst",
            category="Report",
            labels={"result": "all runs in one table"},
        ),
        layers=report(
            "results/report/layers.csv",
            caption="../report/layers.rst",
            category="Report",
            labels={"result": "all runs layer by layer"},
        ),
        figures=report(
            directory("results/report/figures"),
            # The PDFs beside them are the same figures.
            patterns=["{figure,[^/]+}.png", "{dataset}/{model}/{task}/{figure}.png"],
            caption="../report/figures.rst",
            category="Figures",
            subcategory=run_of_figure,
            labels={"figure": "{figure}"},
        ),
        # The page loads from it what is opened.
        explorer=directory("results/report/explorer"),
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(30),
    params:
        version=ALGORITHM_VERSIONS["report"],
        # The page follows their order.
        runs=["/".join(key) for key in STUDY.runs],
        # Printed on the page.
        config=in_order(config),
        models=in_order(STUDY.models),
        datasets=in_order(STUDY.datasets),
    message:
        "Writing the report"
    script:
        "../scripts/report.py"
