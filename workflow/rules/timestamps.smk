# Word timestamps read off every map, where the manifest says when words are said.


rule timestamps:
    input:
        decode=JOBS.shards_of("decode"),
        aggregate=JOBS.shards_of("aggregate"),
    output:
        words=report(
            RUN + "/timestamps/words.csv",
            caption="../report/timestamps_words.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "timestamps, words"},
        ),
        utterances=report(
            RUN + "/timestamps/utterances.csv",
            caption="../report/timestamps_utterances.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "timestamps, utterances"},
        ),
        summary=report(
            RUN + "/timestamps/summary.csv",
            caption="../report/timestamps_summary.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "timestamps"},
        ),
    log:
        LOGS + "/{dataset}/{model}/{task}/timestamps.log",
    benchmark:
        BENCHMARKS + "/{dataset}/{model}/{task}/timestamps.tsv"
    resources:
        mem_mb=JOBS.by_attempt(4000),
        runtime=JOBS.by_attempt(30),
    params:
        version=JOBS.version("timestamps"),
        ids=JOBS.ids,
        alignments=JOBS.alignments,
        diacritics=JOBS.diacritics,
    message:
        "Timing words: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/timestamps.py"
