# One page for all runs.


rule report:
    input:
        transcripts=tables("decode/transcripts.csv"),
        scores=tables("decode/scores.csv"),
        utterances=tables("correlate/utterances.csv"),
        reliability=tables("correlate/reliability.csv"),
        summary=tables("correlate/summary.csv"),
        mixing=tables("correlate/mixing.csv"),
        curves=tables("deletion/curves.csv"),
        auc=tables("deletion/auc.csv"),
        decode=shard_directories("decode"),
        aggregate=shard_directories("aggregate"),
        paper=os.path.relpath(ROOT / "config" / "paper_reference.csv"),
    output:
        page="results/report/index.html",
        figures=directory("results/report/figures"),
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    params:
        version=ALGORITHM_VERSIONS["report"],
        runs=sorted("/".join(key) for key in STUDY.runs),
        # Printed on the page.
        config=config,
        models=STUDY.models,
        datasets=STUDY.datasets,
    resources:
        mem_mb=4000,
        runtime=30,
    message:
        "Writing the report"
    script:
        "../scripts/report.py"
